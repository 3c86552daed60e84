"""Beam search by hand: ends, ties, failures, and what it leaves in the tree on the way."""

from __future__ import annotations

import math

import pytest

from ramify.core.errors import InputError
from ramify.core.params import BeamSearchParams
from ramify.core.structured import StructuredOutput
from ramify.search import Append, BeamSearch, Select
from ramify.search.tree import NodeState
from ramify.testing.scripted import ScriptedModel, ScriptedRun, run_controller
from ramify.testing.scripted_model import table_model

# greedy takes "a", yet "ba" is the most probable text of two letters
DETOUR = {
    "": {"a": 0.6, "b": 0.4},
    "a": {"a": 0.5, "b": 0.5},
    "b": {"a": 0.95, "b": 0.05},
}


def search(
    model: ScriptedModel, *, width: int = 2, eos: tuple[int, ...] = (0,), **params: object
) -> tuple[ScriptedRun, BeamSearch]:
    controller = BeamSearch(BeamSearchParams(beam_width=width, **params), eos)  # type: ignore[arg-type]
    return run_controller(model, controller, "P"), controller


def test_finds_what_greedy_misses() -> None:
    run, controller = search(table_model(DETOUR), max_tokens=2)
    assert run.finish is not None
    assert run.outputs[0] == "ba"
    best = run.finish.outputs[0]
    assert run.tree[best].score == pytest.approx(math.log(0.4 * 0.95) / 2)
    made = controller.hypotheses[best]
    assert (made.num_tokens, made.finish_reason) == (2, "length")
    assert made.cumulative_logprob == pytest.approx(math.log(0.4 * 0.95))


def test_equal_beams_keep_the_lower_rank_first() -> None:
    run, _ = search(table_model(DETOUR), width=3, max_tokens=2)
    assert run.outputs == ["ba", "aa", "ab"]  # aa and ab tie: token order decides


def test_length_penalty_turns_the_order() -> None:
    model = table_model({"": {"": 0.5, "a": 0.5}, "a": {"b": 0.5, "c": 0.5}})
    short_first, _ = search(model, max_tokens=3, length_penalty=0.0, num_return=1)
    long_first, _ = search(model, max_tokens=3, length_penalty=2.0, num_return=1)
    assert short_first.outputs == [""]
    assert long_first.outputs == ["ab"]


def test_end_tokens_are_part_of_the_output() -> None:
    model = table_model({"": {"a": 1.0}, "a": {"": 0.9, "b": 0.1}})
    run, controller = search(model, max_tokens=5)
    assert run.finish is not None
    best = run.finish.outputs[0]
    assert run.tree.completion_ids(best) == [model.encode("a")[0], 0]
    assert run.tree[best].score == pytest.approx(math.log(0.9) / 2)
    assert controller.hypotheses[best].finish_reason == "stop"


def test_ignore_eos_runs_on() -> None:
    model = table_model({"": {"": 0.9, "a": 0.1}})
    run, controller = search(model, max_tokens=3, width=1, ignore_eos=True)
    assert run.finish is not None
    assert run.tree.completion_ids(run.finish.outputs[0]) == [0, 0, 0]
    assert controller.hypotheses[run.finish.outputs[0]].finish_reason == "length"


def test_fewer_continuations_than_beams() -> None:
    """A model with a single possible text: the other beams simply do not exist."""
    run, _ = search(table_model({"": {"a": 1.0}, "a": {"b": 1.0}}), width=4, max_tokens=9)
    assert run.outputs == ["ab"]


def live_chains(run: ScriptedRun) -> int:
    """Leaves of the living tree."""
    living = [n for n in run.tree if n.state is not NodeState.PRUNED]
    parents = {n.parent for n in living}
    return sum(n.id not in parents for n in living)


def _parents_of_outputs(run: ScriptedRun) -> set[int | None]:
    assert run.finish is not None
    return {run.tree[node].parent for node in run.finish.outputs}


def test_only_what_is_needed_stays_alive() -> None:
    """Each step leaves at most `width` running beams and the parents of `width` finished ones."""
    chances = {"a": 0.3, "b": 0.25, "c": 0.2, "": 0.15, "d": 0.1}
    model = ScriptedModel(
        next_logprobs=lambda path: {
            "?abcd".index(t) if t else 0: math.log(p) + 0.01 * (sum(path) % 7)
            for t, p in chances.items()
        },
        vocab=["<eos>", *"abcd", "P"],
    )
    leaves: list[int] = []

    class Watched(BeamSearch):
        def advance(self, tree, events):  # type: ignore[no-untyped-def]
            actions = super().advance(tree, events)
            run_now = ScriptedRun(model, "P", 0)
            run_now.tree = tree
            leaves.append(live_chains(run_now))
            return actions

    params = BeamSearchParams(beam_width=3, max_tokens=12, early_stopping="never")
    run = run_controller(model, Watched(params, (0,)), "P")
    # before the actions of a step are carried out, its candidates' parents are alive too
    assert max(leaves[:-1]) <= 3 * 3
    states = {node.id: node.state for node in run.tree}
    grown = {node.parent for node in run.tree} - {None, run.tree.root}
    assert {NodeState.CLOSED, NodeState.PRUNED} <= {states[node] for node in grown}
    assert all(states[node] is not NodeState.IDLE for node in grown - _parents_of_outputs(run))
    # one row per running beam and step, one more for each returned hypothesis
    selected = [len(a.nodes) for a in run.actions if isinstance(a, Select)]
    assert len([a for a in run.actions if isinstance(a, Append)]) == 3
    assert max(selected) == 3 and sum(selected) <= 3 * 11


def test_structured_beams_that_were_cut_rank_behind_whole_ones() -> None:
    model = table_model({"": {"a": 0.9, "b": 0.1}, "b": {"": 1.0}, "a": {"a": 1.0}})
    plain, _ = search(model, max_tokens=2)
    shape = StructuredOutput(regex="a{9}|b")
    structured, made = search(model, max_tokens=2, structured=shape)
    assert plain.outputs == ["aa", "b"]
    assert structured.outputs == ["b", "aa"]
    assert [h.finish_reason for h in made.hypotheses.values()] == ["stop", "length"]


def test_a_full_context_returns_what_there_is() -> None:
    table = {"": {"a": 0.7, "": 0.3}, **{"a" * i: {"a": 0.9, "": 0.1} for i in range(1, 9)}}
    run, _ = search(table_model(table, max_context=4), max_tokens=8)
    assert run.finish is not None
    assert run.finish.stats == {"failed": "context is full"}
    # the best finished text, "aaa" and the end token, does not fit either
    assert run.outputs == ["aa"]


def test_a_length_norm_beyond_floats_is_refused() -> None:
    with pytest.raises(InputError, match="length_penalty: expected a number that keeps 64"):
        BeamSearch(BeamSearchParams(max_tokens=64, length_penalty=1e4))
