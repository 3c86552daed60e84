"""What an export says of a tree, against counts made by hand."""

from __future__ import annotations

from ramify.core.outputs import TreeNode, Usage
from ramify.export import ExportedTree, make_tree


def test_every_span_is_counted_once_for_the_branches_below_it(tree: ExportedTree) -> None:
    assert [node.num_branches for node in tree.nodes] == [4, 1, 2, 1, 1, 1, 1, 1]
    prompt, evil = len(tree.nodes[0].token_ids), len(tree.nodes[4].token_ids)
    # the fork's one token is stored in the node that it was forked from
    assert tree.stored_tokens == prompt + 2 + 2 + 1 + evil + 2
    assert tree.branch_tokens == 4 * prompt + 2 + 2 * 2 + 1 + evil + 2 + 1


def test_what_is_no_finite_number_is_none_or_left_out(tree: ExportedTree) -> None:
    cut = tree.nodes[3]
    assert cut.score is None and cut.cumulative_logprob is None
    assert tree.nodes[5].token_logprobs == [-1.0, None]
    assert tree.stats == {"rounds": 3, "mean": 0.5, "word": "x"}


def test_an_export_does_not_change_with_what_it_was_made_of() -> None:
    usage, ids = Usage(steps=1), [1, 2]
    node = TreeNode(
        id=0, parent=None, token_ids=ids, text="a", state="idle", cumulative_logprob=0.0
    )
    made = make_tree(
        [node],
        [[]],
        model="m",
        outputs=[],
        usage=usage,
        stats={},
        solved=False,
        kv_bytes_per_token=1,
    )
    usage.steps = 2
    ids.append(3)
    assert made.usage.steps == 1 and made.nodes[0].token_ids == [1, 2]
