"""Recorded drafts: parents from paths, contexts from accepted lengths, files that are wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ramify.core.env import WORKLOADS
from ramify.core.errors import InputError
from ramify.search.drafts import load_recorded_drafts

PATHS = [[0], [0, 0], [1], [0, 1], [0, 0, 0]]


def _write(path: Path, paths=PATHS, *lengths: list[int]) -> Path:
    records = [{"prompt": "p", "Accept_length": own} for own in lengths or ([1, 3, 2],)]
    path.write_text(json.dumps({"Tree_ID": 1, "Tree_Structure": paths, "Records": records}))
    return path


def test_parents_are_those_of_the_paths(tmp_path):
    drafts = load_recorded_drafts(_write(tmp_path / "d.json"))
    # level by level: [0], [1], then [0, 0], [0, 1], then [0, 0, 0]
    assert drafts.parent == (-1, 0, 0, 1, 1, 3)
    assert drafts.accepted == ((1, 3, 2),)


def test_paths_may_come_before_their_parents(tmp_path):
    drafts = load_recorded_drafts(_write(tmp_path / "d.json", [[0, 0], [0]]))
    assert drafts.parent == (-1, 0, 1)


def test_contexts_grow_by_what_was_accepted_and_the_record_repeats(tmp_path):
    drafts = load_recorded_drafts(_write(tmp_path / "d.json"))
    assert drafts.contexts(0, 10, 6) == [10, 11, 14]
    assert drafts.contexts(0, 10, 8) == [10, 11, 14, 16, 17]
    with pytest.raises(InputError, match="record"):
        drafts.contexts(1, 10, 8)


@pytest.mark.parametrize(
    ("paths", "lengths", "says"),
    [
        ([[0], [1, 0]], [1], r"the parent of path \[1, 0\]"),
        ([[0], []], [1], "the parent of path"),
        ([[0], [0]], [1], "every path once"),
        ([[0]], [1, 0], "at least 1 token a step"),
        ([[0]], [], "at least 1 token a step"),
    ],
)
def test_files_that_are_wrong(tmp_path, paths, lengths, says):
    with pytest.raises(InputError, match=says):
        load_recorded_drafts(_write(tmp_path / "d.json", paths, lengths))


def test_files_that_are_no_drafts(tmp_path):
    with pytest.raises(InputError, match="readable"):
        load_recorded_drafts(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match="recorded drafts"):
        load_recorded_drafts(tmp_path / "list.json")


@pytest.mark.skipif(WORKLOADS not in os.environ, reason=f"{WORKLOADS} is not set")
@pytest.mark.parametrize("size", [64, 128])
def test_the_published_files(size):
    drafts = load_recorded_drafts(Path(os.environ[WORKLOADS]) / f"APPS_tree_size{size}.json")
    assert len(drafts.parent) == size and len(drafts.accepted) == 20
    assert {sum(own) for own in drafts.accepted} == {1738}
