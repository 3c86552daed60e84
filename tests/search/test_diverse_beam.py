"""Diverse beam search: by hand, and against plain beam search where the two must agree."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.core.errors import InputError
from ramify.core.params import BeamSearchParams
from ramify.core.seeds import mix64
from ramify.search import BeamSearch, DiverseBeamSearch
from ramify.search.tree import NodeState
from ramify.testing.scripted import ScriptedRun, run_controller
from ramify.testing.scripted_model import ScriptedModel, table_model

TABLE = {
    "": {"a": 0.6, "b": 0.3, "c": 0.1},
    "a": {"a": 0.7, "b": 0.3},
    "b": {"a": 0.9, "b": 0.1},
    "c": {"a": 1.0},
}


def run_groups(
    model: ScriptedModel, groups: int, penalty: float, eos: tuple[int, ...] = (0,), **params: object
) -> ScriptedRun:
    controller = DiverseBeamSearch(
        BeamSearchParams(**params),  # type: ignore[arg-type]
        num_groups=groups,
        diversity_penalty=penalty,
        eos_token_ids=eos,
    )
    return run_controller(model, controller, "P")


def scores(run: ScriptedRun) -> list[tuple[str, float | None]]:
    assert run.finish is not None
    return [(run.tree.completion_text(n), run.tree[n].score) for n in run.finish.outputs]


def random_model(seed: int) -> ScriptedModel:
    def next_logprobs(path: tuple[int, ...]) -> dict[int, float]:
        dice = mix64(seed ^ mix64(hash(path) & (2**62 - 1)))
        weights = {token: 1 + (dice >> 6 * token) % 61 for token in range(6) if token != 1}
        return {token: math.log(w / sum(weights.values())) for token, w in weights.items()}

    vocab = ["", "P", "a", "b", "c", "d"]
    return ScriptedModel(next_logprobs=next_logprobs, vocab=vocab, eos_token_ids=(0,))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    width=st.integers(1, 4),
    max_tokens=st.integers(1, 5),
    length_penalty=st.sampled_from([0.0, 1.0, -0.5]),
    early=st.booleans(),
    groups=st.integers(1, 3),
)
def test_without_a_penalty_every_group_is_a_plain_beam_search(
    seed: int, width: int, max_tokens: int, length_penalty: float, early: bool, groups: int
) -> None:
    model = random_model(seed)
    rest = {
        "max_tokens": max_tokens, "length_penalty": length_penalty, "early_stopping": early
    }  # fmt: skip
    plain = run_controller(model, BeamSearch(BeamSearchParams(beam_width=width, **rest), (0,)), "P")
    run = run_groups(model, groups, 0.0, beam_width=width * groups, **rest)
    expected = [pair for pair in scores(plain) for _ in range(groups)]
    # of equal scores, the one of the earlier group goes first
    assert sorted(text for text, _ in scores(run)) == sorted(text for text, _ in expected)
    assert [s for _, s in scores(run)] == pytest.approx([s for _, s in expected])


def test_the_second_group_avoids_what_the_first_took() -> None:
    """One beam a group, two tokens. First: aa, 0.42. Second: 'a' at 0.6 / e is behind b at 0.3;
    then 'a' again, as 0.9 / e is still before 0.1."""
    run = run_groups(table_model(TABLE), 2, 1.0, beam_width=2, max_tokens=2, length_penalty=0.0)
    assert [text for text, _ in scores(run)] == ["aa", "ba"]
    assert [s for _, s in scores(run)] == pytest.approx([math.log(0.42), math.log(0.27)])
    # with a small penalty both go the same way, and part where it tips the scale
    near = run_groups(table_model(TABLE), 2, 0.1, beam_width=2, max_tokens=2, length_penalty=0.0)
    assert [text for text, _ in scores(near)] == ["aa", "aa"]


def test_penalties_count_every_earlier_beam() -> None:
    """Third group, after a and b: 0.6 / e, 0.3 / e, 0.1: 'a' again; with e ** 2, 'c' leads."""
    run = run_groups(table_model(TABLE), 3, 1.0, beam_width=3, max_tokens=1, length_penalty=0.0)
    assert [text for text, _ in scores(run)] == ["a", "a", "b"]
    run = run_groups(table_model(TABLE), 3, 2.0, beam_width=3, max_tokens=1, length_penalty=0.0)
    assert [text for text, _ in scores(run)] == ["a", "b", "c"]


def test_beams_that_fell_behind_are_cut_and_a_full_context_is_survived() -> None:
    run = run_groups(table_model(TABLE), 2, 1.0, beam_width=4, max_tokens=3)
    assert run.finish is not None
    paths = {step.id for node in run.finish.outputs for step in run.tree.path(node)}
    alive = [n.id for n in run.tree if n.state is not NodeState.PRUNED]
    assert paths <= set(alive)
    assert len(alive) < len(run.tree)
    stopped = run_groups(
        table_model(TABLE, max_context=2), 2, 1.0, eos=(), beam_width=2, max_tokens=5
    )
    assert stopped.finish is not None
    assert stopped.finish.stats["failed"] == "context is full"
    assert stopped.outputs == []


@pytest.mark.parametrize(
    ("groups", "penalty", "named"),
    [(3, 0.5, "num_groups"), (0, 0.5, "num_groups"), (2, -1.0, "diversity_penalty")],
)
def test_options_are_checked(groups: int, penalty: float, named: str) -> None:
    with pytest.raises(InputError, match=f"{named}: expected"):
        DiverseBeamSearch(BeamSearchParams(), num_groups=groups, diversity_penalty=penalty)
