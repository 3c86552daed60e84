"""Counted bytes: the closed forms of few-shot, the paper's own figures, sums by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ramify.attention import METHODS
from ramify.bench.deft.counts import Counts, count_workload, paper_bytes
from ramify.bench.deft.paper import PAPER
from ramify.bench.deft.workloads import few_shot, reasoning, speculative
from ramify.core.env import WORKLOADS

GROUPED = ("node", "node_chunk", "flatten")
needs_recordings = pytest.mark.skipif(WORKLOADS not in os.environ, reason=f"{WORKLOADS} is not set")


def _few_shot_tokens(branches: int, steps: int) -> tuple[int, int]:
    """Read once and by every branch: sums over steps i of 4000 + b i and of b (4000 + i)."""
    grown = steps * (steps + 1) // 2
    return 4000 * steps + branches * grown, branches * (4000 * steps + grown)


@pytest.mark.parametrize(
    ("branches", "grouped_bytes"),
    # the counters published with DeFT's code, for 399 steps
    [(20, 1_673_527_296_000), (30, 2_091_909_120_000), (50, 2_928_672_768_000)],
)
def test_few_shot_is_the_published_count(branches, grouped_bytes):
    once, alone = _few_shot_tokens(branches, 399)
    assert paper_bytes(once) == grouped_bytes
    counts = count_workload(few_shot(branches), METHODS)
    for method in GROUPED:
        assert paper_bytes(counts[method].read_tokens) == grouped_bytes
    for method in ("per_branch", "lean"):
        assert counts[method].read_tokens == alone
    assert {found.unique_tokens for found in counts.values()} == {once}
    assert once <= counts["fused"].read_tokens < alone


def test_per_branch_is_the_published_count():
    assert paper_bytes(_few_shot_tokens(20, 399)[1]) == 17_572_036_608_000


@pytest.mark.parametrize("branches", [20, 30, 50])
def test_the_tables_of_the_paper_have_one_step_more(branches):
    once, alone = _few_shot_tokens(branches, 400)
    paper = PAPER[f"few_shot_b{branches}"]
    assert paper_bytes(once) / 1e12 == pytest.approx(paper.deft_kv_tb, abs=0.005)
    assert paper_bytes(alone) / 1e12 == pytest.approx(paper.radix_kv_tb, abs=0.005)


def test_partials_of_nodes_by_hand():
    """Every row has the prompt and its own node: two partials, in each of four steps."""
    counts = count_workload(few_shot(3, prompt=7, generated=5), ["node", "per_branch"])
    assert counts["node"].partial_rows == 4 * 3 * 2
    # a path of at most 11 tokens is one part
    assert counts["per_branch"].partial_rows == 0


def test_wide_items_load_their_kv_again():
    """64 rows are 256 packed rows, two tiles of 128: the prompt is loaded twice."""
    (counts,) = count_workload(few_shot(64, prompt=100, generated=2), ["node"]).values()
    assert counts.read_tokens == 100 + 64
    assert counts.loaded_tokens == 200 + 64


def test_counts_add_up():
    one = Counts(unique_tokens=1, read_tokens=2, loaded_tokens=3, partial_rows=4)
    assert one + one == Counts(unique_tokens=2, read_tokens=4, loaded_tokens=6, partial_rows=8)


def test_recordings_count_as_their_states_say(folder):
    workload = reasoning(folder / "smallToT.json")
    counts = count_workload(workload, METHODS)
    states = [state.forest() for state in workload.states()]
    assert counts["flatten"].read_tokens == sum(forest.unique_tokens for forest in states)
    assert counts["per_branch"].read_tokens == sum(forest.path_tokens for forest in states)


def test_long_workloads_report_on_the_way(monkeypatch):
    monkeypatch.setattr("ramify.bench.deft.counts.REPORT_EVERY", 2)
    said = []
    count_workload(few_shot(1, prompt=3, generated=6), ["node"], progress=said.append)
    assert said == ["few_shot_b1: 2 of 5 steps counted", "few_shot_b1: 4 of 5 steps counted"]


@needs_recordings
@pytest.mark.slow
@pytest.mark.parametrize("name", ["sorting128", "docmerge"])
def test_ten_trees_are_the_paper_s_figures(name):
    """The paper's KV traffic is the mean over the first ten complete trees of a file."""
    workload = reasoning(Path(os.environ[WORKLOADS]) / f"{name}ToT.json")
    counts = count_workload(workload, ["flatten", "per_branch"])
    found = {m: paper_bytes(c.read_tokens) / 1e13 for m, c in counts.items()}
    assert found["flatten"] == pytest.approx(PAPER[name].deft_kv_tb, abs=0.005)
    assert found["per_branch"] == pytest.approx(PAPER[name].radix_kv_tb, rel=1e-3)


@needs_recordings
def test_published_drafts_count_their_ancestors():
    workload = speculative(Path(os.environ[WORKLOADS]) / "APPS_tree_size64.json", generated=100)
    (alone,) = count_workload(workload, ["per_branch"]).values()
    contexts = [state.length[0] for state in workload.states()]
    depth = [1]
    for above in workload.state(0).parent[2:]:
        depth.append(depth[above - 1] + 1)
    assert alone.read_tokens == 64 * sum(contexts) + len(contexts) * sum(depth)
