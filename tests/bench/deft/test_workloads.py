"""DeFT's workloads: steps, rows and tokens are those of the description or the recording."""

from __future__ import annotations

import pytest

from ramify.bench.deft.workloads import (
    DRAFT_PROMPT,
    few_shot,
    reasoning,
    speculative,
    workloads,
)
from ramify.core.errors import InputError


def test_few_shot_grows_by_a_token_a_branch():
    workload = few_shot(3, prompt=7, generated=5)
    # the prefill gives the first of five tokens, so four steps are left
    assert workload.num_steps == 4
    tokens = [state.forest().unique_tokens for state in workload.states()]
    assert tokens == [7 + 3 * step for step in range(1, 5)]
    assert {state.forest().num_rows for state in workload.states()} == {3}


def test_reasoning_starts_behind_the_prompt(folder):
    workload = reasoning(folder / "smallToT.json")
    assert workload.name == "small" and len(workload.parts) == 2
    assert workload.num_steps == 2 * 5
    rows = [state.forest().num_rows for state in workload.states()]
    assert rows == [2, 2, 2, 2, 1] * 2
    first, second = workload.state(2).forest(), workload.state(5 + 2).forest()
    # prompt, two tokens of node 1, three of node 2, one of node 3
    assert (first.unique_tokens, second.unique_tokens) == (6 + 6, 130 + 6)
    assert len(reasoning(folder / "smallToT.json", num_trees=1).parts) == 1
    with pytest.raises(IndexError):
        workload.state(10)


def test_drafts_grow_by_what_was_accepted(folder):
    workload = speculative(folder / "APPS_tree_size4.json", prompt=10, generated=7)
    assert workload.name == "spec_t4"
    tokens = [state.forest().unique_tokens for state in workload.states()]
    assert tokens == [10 + 4, 12 + 4, 13 + 4, 16 + 4]


def test_a_folder_is_read_by_the_names_of_its_files(folder, tmp_path):
    found = workloads(folder)
    names = [workload.name for workload in found]
    assert names == ["few_shot_b20", "few_shot_b30", "few_shot_b50", "small", "spec_t4"]
    assert found[-1].state(0).length[0] == DRAFT_PROMPT
    assert [workload.name for workload in workloads(None)] == names[:3]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="a folder with"):
        workloads(tmp_path / "empty")
