"""Drawing a tree: what is kept when there is little room."""

from __future__ import annotations

import pytest

from ramify.cli.tree_text import Twig, draw_tree, twigs_of_nodes
from ramify.core.outputs import TreeNode


def twig(id, parent, state="idle", score=None, text=None):
    return Twig(
        id=id, parent=parent, text=text or f"node{id}", state=state, num_tokens=3, score=score
    )


def wide_tree(leaves):
    twigs = [twig(0, None, text="prompt")]
    for index in range(1, leaves + 1):
        twigs.append(twig(index, 0, state="pruned" if index % 2 else "idle", score=index / 100))
    return twigs


def test_a_small_tree_is_drawn_whole():
    twigs = [twig(0, None, text="a\nb\n"), twig(1, 0, score=0.25), twig(2, 1, "pruned"), twig(3, 0)]
    lines = draw_tree(twigs, height=10).plain.splitlines()
    assert lines[0] == "a ⏎ b  (3 tokens)"
    assert [line.split()[0] for line in lines[1:]] == ["├─", "│", "└─"]
    assert "0.250" in lines[1] and "✗" in lines[2] and "3 tok" in lines[3]


@pytest.mark.parametrize("height", [3, 5, 12, 40])
@pytest.mark.parametrize("leaves", [1, 2, 11, 60])
def test_never_higher_than_asked(leaves, height):
    text = draw_tree(wide_tree(leaves), height=height).plain
    assert len(text.splitlines()) <= height
    hidden = leaves - text.count("node")
    assert (hidden == 0) == ("more" not in text)
    if hidden:
        assert f"… {hidden} more" in text


def test_the_best_path_and_high_scores_stay():
    chain = [twig(100 + i, 0 if i == 0 else 99 + i, "best") for i in range(3)]
    text = draw_tree([*wide_tree(60), *chain], height=8).plain
    assert all(f"node{100 + i}" in text for i in range(3))
    assert "node60" in text and "node59 " not in text


def test_the_best_path_leads_to_the_first_output():
    def node(id, parent):
        return TreeNode(
            id=id, parent=parent, token_ids=[1], text="", state="idle", cumulative_logprob=0.0
        )

    nodes = [node(0, None), node(1, 0), node(2, 0), node(3, 1), node(4, 2), node(5, 2)]
    states = {t.id: t.state for t in twigs_of_nodes(nodes, [4, 3])}
    assert [id for id, state in states.items() if state == "best"] == [2, 4]
    assert all(t.state != "best" for t in twigs_of_nodes(nodes, []))


def test_control_characters_do_not_reach_the_terminal():
    text = draw_tree([twig(0, None), twig(1, 0, text="\x1b[2Ja\tb")], height=5).plain
    assert "\x1b" not in text and "\t" not in text
