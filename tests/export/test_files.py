"""Trees come back from files as they were; what is wrong with a file is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.core.errors import InputError
from ramify.core.outputs import TreeNode, Usage
from ramify.export import (
    ExportedTree,
    load_tree,
    make_tree,
    read_tree,
    save_tree,
    tree_json,
    tree_page,
)


def test_json_comes_back_as_it_was(tree: ExportedTree, tmp_path: Path) -> None:
    save_tree(tree, tmp_path / "tree.json")
    assert load_tree(tmp_path / "tree.json") == tree
    fields = json.loads((tmp_path / "tree.json").read_text(encoding="utf-8"))
    assert (fields["format"], fields["version"]) == ("ramify-tree", 1)
    assert fields["nodes"][2]["seed"] == 2**62 + 1
    assert fields["nodes"][4]["stop_reason"] == "\n" and fields["nodes"][6]["stop_reason"] == 7


def test_the_name_says_whether_a_page_is_written(tree: ExportedTree, tmp_path: Path) -> None:
    for name in ("tree.html", "TREE.HTM"):
        save_tree(tree, tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8") == tree_page(tree)
    with pytest.raises(InputError, match="nowhere.*: expected a writable file, got No such file"):
        save_tree(tree, tmp_path / "nowhere" / "tree.json")


@given(
    parents=st.lists(st.integers(0, 30), max_size=12),
    texts=st.lists(st.text(max_size=8), min_size=13, max_size=13),
    number=st.floats(allow_nan=False, allow_infinity=False),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_tree_comes_back(
    parents: list[int], texts: list[str], number: float, seed: int
) -> None:
    above = [None, *(parent % (place + 1) for place, parent in enumerate(parents))]
    nodes = [
        TreeNode(
            id=place,
            parent=parent,
            token_ids=[place],
            text=text,
            state="idle",
            cumulative_logprob=number,
            token_logprobs=[number],
            score=number,
            seed=seed,
        )
        for place, (parent, text) in enumerate(zip(above, texts, strict=False))
    ]
    made = make_tree(
        nodes,
        [[node.text] for node in nodes],
        model="m",
        outputs=[0],
        usage=Usage(total_s=number),
        stats={"x": number},
        solved=False,
        kv_bytes_per_token=1,
    )
    assert read_tree(tree_json(made)) == made


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "format ramify-tree of version 1, got format ramify-tree of version 2"),
        ({"format": "other"}, "got format other of version 1"),
        ({"outputs": [99]}, r"outputs: expected ids of its nodes, got \[99\]"),
        ({"nodes": []}, "a root first"),
        ({"solved": "yes"}, r"Expected `bool`, got `str` - at `\$.solved`"),
        ({"more": 1}, "unknown field `more`"),
        ({"nodes": {1: {"parent": 6}}}, "node 1: expected a new id below an earlier node, got 6"),
        ({"nodes": {1: {"id": 0}}}, "node 0: expected a new id"),
        ({"nodes": {1: {"parent": None}}}, "node 1: expected a new id below an earlier node"),
        ({"nodes": {2: {"token_logprobs": [-1.0]}}}, "node 2: logprobs: expected 2, got 1"),
        ({"nodes": {2: {"token_texts": ["a"]}}}, "node 2: texts: expected 2, got 1"),
        ({"nodes": {0: {"parent": 0}}}, "a root first"),
        ({"nodes": {1: {"forked_from": 1}}}, "node 1: forked_from: expected an earlier node"),
    ],
)
def test_a_wrong_document_is_named(tree: ExportedTree, change: dict[str, Any], says: str) -> None:
    fields = json.loads(tree_json(tree))
    for name, value in change.items():
        if isinstance(value, dict):
            for place, new in value.items():
                fields[name][place].update(new)
        else:
            fields[name] = value
    with pytest.raises(InputError, match=says):
        read_tree(json.dumps(fields))


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", b"\xff\xfe", '"ramify-tree"'])
def test_what_is_no_tree(content: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tree: expected"):
        read_tree(content)
    with pytest.raises(InputError, match="a readable file, got No such file"):
        load_tree(tmp_path / "none.json")
