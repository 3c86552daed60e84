"""A small exported tree with everything that a tree can have, counted by hand."""

from __future__ import annotations

import pytest

from ramify.core.outputs import TreeNode, Usage
from ramify.export import ExportedTree, make_tree

EVIL = "</script><script>document.title='taken'</script><b>bold</b> & \u2028 \"quoted\" 'too'"


def node(id: int, parent: int | None, text: str, **more: object) -> TreeNode:
    """A node whose words are its tokens."""
    fields: dict[str, object] = {
        "token_ids": [10 * id + place for place in range(len(text.split()))],
        "state": "idle",
        "cumulative_logprob": -0.5 * id,
    }
    return TreeNode(id=id, parent=parent, text=text, **(fields | more))


@pytest.fixture
def tree() -> ExportedTree:
    """Branches end at 3, 4, 5 and 7; 6 is the first word of 2, forked."""
    nodes = [
        node(0, None, "the prompt says " + EVIL),
        node(1, 0, "left side", score=0.25),
        node(2, 0, "right side", score=0.75, token_logprobs=[-0.1, -2.5], seed=2**62 + 1),
        node(3, 1, "cut", state="pruned", score=float("-inf"), cumulative_logprob=float("-inf")),
        node(4, 2, EVIL, finish_reason="stop", stop_reason="\n"),
        node(5, 2, "a leaf", finish_reason="length", token_logprobs=[-1.0, float("-inf")]),
        node(6, 0, "right", forked_from=2, finish_reason="stop", stop_reason=7),
        node(7, 6, ""),
    ]
    return make_tree(
        nodes,
        [[f" {word}" for word in one.text.split()] for one in nodes],
        model="<i>model</i>",
        outputs=[4, 5],
        usage=Usage(prompt_tokens=12, generated_tokens=9, first_token_s=0.5),
        stats={"rounds": 3, "mean": 0.5, "word": "x", "lost": float("nan")},
        solved=True,
        kv_bytes_per_token=1024,
    )
