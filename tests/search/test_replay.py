"""Recorded trees: what a file may hold, and the replay's rows and tokens per iteration."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ramify.core import env
from ramify.core.errors import InputError
from ramify.core.params import SamplingParams
from ramify.search.recorded import RecordedNode, RecordedTree, check_tree, load_recorded_trees
from ramify.search.replay import Replay
from ramify.search.tree import NodeState
from ramify.testing.scripted import ScriptedModel, ScriptedRun, run_controller

MODEL = ScriptedModel(next_logprobs=lambda path: {0: 0.0}, vocab=["a"], eos_token_ids=(0,))
WORKLOADS = os.environ.get(env.WORKLOADS)


def node(id: int, value: int, start: int, children: tuple[int, ...] = ()) -> dict[str, Any]:
    end = start + value - 1
    return {"id": id, "value": value, "start": start, "end": end, "children": list(children)}


def small() -> dict[str, dict[str, Any]]:
    """Prompt of 3; 1 (2 tokens) forks into 3 and 4; 2 is a leaf; 5 never grew."""
    nodes = [
        node(0, 3, -2, (1, 2)),
        node(1, 2, 1, (3, 4, 5)),
        node(2, 4, 1),
        node(3, 1, 3),
        node(4, 3, 3),
        node(5, 0, 3),
    ]
    return {str(n["id"]): n for n in nodes}


def write(folder: Path, data: dict[str, Any], incompleted: bool = False) -> Path:
    path = folder / "trees.json"
    path.write_text(json.dumps([{"incompleted": incompleted, "prompt": "p", "data": data}]))
    return path


def random_tree(seed: int) -> RecordedTree:
    rng = np.random.default_rng(seed)
    prompt = int(rng.integers(1, 9))
    nodes = {0: node(0, prompt, 1 - prompt)}
    for child in range(1, int(rng.integers(2, 25))):
        grown = [n for n in nodes.values() if n["value"]][-5:]
        above = grown[int(rng.integers(len(grown)))]
        nodes[child] = node(child, int(rng.integers(0, 7)), above["end"] + 1)
        above["children"].append(child)
    return check_tree({str(i): RecordedNode(**n) for i, n in nodes.items()})


def replayed(tree: RecordedTree) -> ScriptedRun:
    prompt = (0,) * tree.root.value
    return run_controller(MODEL, Replay(tree, SamplingParams(stop_token_ids=[0])), prompt)


def assert_as_recorded(tree: RecordedTree, run: ScriptedRun) -> None:
    found = [(step.rows, step.live_tokens) for step in run.steps]
    assert found == [(tree.rows_at(i), tree.live_tokens_at(i)) for i in range(tree.num_iterations)]


def test_hand_computed_rows_and_tokens(tmp_path: Path) -> None:
    (tree,) = load_recorded_trees(write(tmp_path, small()))
    assert tree.num_iterations == 6
    assert (tree.generated_tokens, tree.longest_path) == (10, 8)
    assert [tree.rows_at(i) for i in range(7)] == [1, 2, 2, 3, 2, 1, 0]
    # 3 of the prompt; node 3 is cut after iteration 3, node 2 after 4, the rest after 5
    assert [tree.live_tokens_at(i) for i in range(7)] == [3, 5, 7, 10, 11, 8, 0]
    assert tree.peak_live_tokens == 11
    assert_as_recorded(tree, replayed(tree))


@pytest.mark.parametrize("seed", range(30))
def test_replay_follows_random_records(seed: int) -> None:
    tree = random_tree(seed)
    run = replayed(tree)
    assert_as_recorded(tree, run)
    assert run.tree.generated_tokens == tree.generated_tokens
    survivors = [n for n in run.tree if n.state is not NodeState.PRUNED and n.id != 0]
    # the last leaf is not pruned but ended by Finish, with the path above it
    assert all(run.tree.path(n.id)[-1] in run.tree.path(survivors[-1].id) for n in survivors)


def test_replay_needs_a_prompt_of_the_recorded_length() -> None:
    with pytest.raises(InputError, match=r"prompt: expected 3 tokens, as recorded, got 2"):
        run_controller(MODEL, Replay(check_tree(structs(small()))), (0, 0))


def structs(data: dict[str, dict[str, Any]]) -> dict[str, RecordedNode]:
    return {key: RecordedNode(**value) for key, value in data.items()}


@pytest.mark.parametrize("max_context", [8, 7, 5, 4])
def test_scaled_fits_and_keeps_the_shape(max_context: int) -> None:
    tree = check_tree(structs(small()))
    scaled = tree.scaled(max_context)
    assert scaled.longest_path <= max_context
    check_tree({str(n.id): n for n in scaled.nodes})
    assert [n.children for n in scaled.nodes] == [n.children for n in tree.nodes]
    assert [bool(n.value) for n in scaled.nodes] == [bool(n.value) for n in tree.nodes]
    assert_as_recorded(scaled, replayed(scaled))
    if max_context == 8:
        assert scaled is tree


def test_scaling_below_the_depth_is_refused() -> None:
    with pytest.raises(InputError, match="max_context: expected at least 3 for this tree, got 2"):
        check_tree(structs(small())).scaled(2)


def test_incomplete_trees_are_skipped(tmp_path: Path) -> None:
    broken = {"0": node(0, 3, -2, (9,))}
    assert load_recorded_trees(write(tmp_path, broken, incompleted=True)) == []


def broken(**changes: dict[str, Any]) -> dict[str, Any]:
    data = small()
    for key, change in changes.items():
        data.setdefault(key[1:], node(int(key[1:]), 1, 5)).update(change)
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (broken(n1={"children": [3, 4, 5, 7]}), "child 7 of node 1 to exist, got no such node"),
        (broken(n2={"children": [3]}), "node 3 to have one parent, got 1 and 2"),
        (broken(n1={"children": [3]}), r"descend from root 0, got orphans \[4, 5\]"),
        (broken(n0={"children": [1]}, n2={"children": [2]}), r"descend.*got a cycle of \[2\]"),
        (broken(n3={"children": [0]}), "a root, a node that is nobody's child, got none of 6"),
        (broken(n0={"start": -1, "end": 1}), "a root whose end is 0, got end 1 at node 0"),
        (broken(n4={"value": 2}), "node 4 to have end - start . 1 = 3 tokens, got value 2"),
        (
            broken(n4={"start": 4, "end": 6}),
            "node 4 to start at 3, after its parent 1, got start 4",
        ),
        (broken(n5={"children": [6]}, n6={}), "node 5 to have >= 1 tokens, got 0"),
        (broken(n4={"id": 8}), "key 8 for node 8, got key '4'"),
        ({"0": node(0, 0, 1)}, "a prompt of >= 1 token, got 0"),
        ({}, "a root, a node that is nobody's child, got none of 0 nodes"),
    ],
)
def test_a_broken_tree_says_expected_and_received(
    tmp_path: Path, data: dict[str, Any], message: str
) -> None:
    path = write(tmp_path, data)
    with pytest.raises(InputError, match=rf"trees\.json, tree 0: expected .*{message}"):
        load_recorded_trees(path)


@pytest.mark.parametrize(
    "text", ["", "{}", "[{}]", '[{"incompleted": false, "data": {"0": {"id": "zero"}}}]']
)
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"bad\.json: expected a list of recorded trees, got"):
        load_recorded_trees(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.json: expected a readable file, got No such file"):
        load_recorded_trees(tmp_path / "gone.json")


@pytest.mark.skipif(WORKLOADS is None, reason="RAMIFY_WORKLOADS names no folder of recorded trees")
@pytest.mark.parametrize(("name", "count"), [("sorting128ToT.json", 77), ("docmergeToT.json", 50)])
def test_published_files_load_and_replay(name: str, count: int) -> None:
    assert WORKLOADS is not None
    trees = load_recorded_trees(Path(WORKLOADS) / name)
    assert len(trees) == count
    for tree in trees[::10]:
        assert_as_recorded(tree.scaled(200), replayed(tree.scaled(200)))
