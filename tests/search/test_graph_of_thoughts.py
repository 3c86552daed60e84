"""Graph of thoughts by hand: parts, the best of k, merges in pairs, budgets, early merges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.core.errors import InputError
from ramify.core.params import SamplingParams
from ramify.search import Budget, GraphOfThoughts, Value
from ramify.search.graph_of_thoughts import pairs_of
from ramify.search.tree import NodeState
from ramify.testing.scripted import ScriptedRun, run_controller
from ramify.testing.scripted_model import ScriptedModel

ANSWER = SamplingParams(max_tokens=12, stop="\n", include_stop_str_in_output=True)
VOCAB = ["", "P", "a", "b", "c", "d", "e", "?", "+", "\n"]


def writing_model() -> ScriptedModel:
    """After a prompt of letters and '?', writes each letter or, half as often, an 'e' for it."""

    def next_logprobs(path: tuple[int, ...]) -> dict[int, float]:
        text = "".join(VOCAB[token] for token in path).removeprefix("P")
        asked, _, written = text.partition("?")
        letters = sorted(asked.replace("+", ""))
        if len(written) >= len(letters):
            return {VOCAB.index("\n"): 0.0}
        right = VOCAB.index(letters[len(written)])
        return {right: math.log(2 / 3), VOCAB.index("e"): math.log(1 / 3)}

    return ScriptedModel(next_logprobs=next_logprobs, vocab=VOCAB, eos_token_ids=(0,))


@dataclass
class Letters:
    """Sort letters: parts are asked for one by one, results are joined by a plus."""

    parts: list[str]

    def merge(self, left: str, right: str) -> str:
        return f"{left.strip()}+{right.strip()}?"


def checker(prompt: str, text: str) -> Value:
    """The share of letters that are right; the prompt of the part is the one that counts."""
    asked = sorted(prompt.removeprefix("P").rstrip("?").replace("+", ""))
    right = sum(a == b for a, b in zip(asked, text.strip(), strict=True))
    return Value(score=right / len(asked), solved=right == len(asked))


def run_got(parts: list[str], seed: int = 0, **options: object) -> ScriptedRun:
    options = {"scorer": checker, "k": 16} | options
    controller = GraphOfThoughts(params=ANSWER, plan=Letters(parts), **options)  # type: ignore[arg-type]
    return run_controller(writing_model(), controller, "P", seed=seed)


def test_pairs_by_hand() -> None:
    # five parts: two pairs and an odd one, which meets the others at the end
    pairs = pairs_of(5)
    assert pairs[0, 1] == pairs[1, 2] == ((0, 1), (1, 2))
    assert pairs[2, 3] == pairs[3, 4] == ((2, 3), (3, 4))
    assert pairs[0, 2] == pairs[2, 4] == ((0, 2), (2, 4))
    assert pairs[0, 4] == pairs[4, 5] == ((0, 4), (4, 5))
    assert len(pairs) == 8
    assert pairs_of(1) == {}


def test_splits_solves_keeps_the_best_and_merges_in_pairs() -> None:
    run = run_got(["d?", "b?", "ca?", "b?"])
    assert run.finish is not None
    assert run.finish.solved
    asked = [text for text, _ in run.expansions]
    assert asked[:4] == ["d?", "b?", "ca?", "b?"]
    assert asked[4:] == ["d+b?", "ac+b?", "bd+abc?"]
    assert run.outputs == ["bd+abc?abbcd\n"]
    assert run.finish.stats["operations"] == 7
    # parts are cut once they are merged, and so is what was not the best
    assert run.alive == ["bd+abc?", "bd+abc?abbcd\n"]


def test_a_pair_does_not_wait_for_another() -> None:
    """The long part takes 1 + 8 steps; d, b and their merge fit beside it. Then 1 + 10."""
    run = run_got(["d?", "b?", "ccccccc?"])
    assert [len(text) for text in run.outputs] == [len("bd+ccccccc?bcccccccd\n")]
    assert len(run.steps) == 9 + 11


def test_of_equal_solutions_the_earlier_stays() -> None:
    run = run_got(["ab?"], scorer=lambda prompt, text: 0.5)
    (prompt,) = [n for n in run.tree if n.text == "ab?"]
    assert run.finish is not None
    kept = run.finish.outputs[0]
    ends = [n for n in prompt.children if run.tree[n].state is not NodeState.PRUNED]
    assert ends == [kept] == [min(prompt.children)]
    assert not run.finish.solved


def test_attempts_end_when_a_part_is_solved() -> None:
    runs = [run_got(["abcd?"], seed, k=1, attempts=50) for seed in range(4)]
    assert all(run.finish is not None and run.finish.solved for run in runs)
    assert 1 < max(len(run.expansions) for run in runs) < 50
    assert len(run_got(["abcd?"], k=1, scorer=lambda p, t: 0.1, attempts=3).expansions) == 3


def test_what_breaks_the_rules_is_never_a_result() -> None:
    run = run_got(["ab?", "c?"], scorer=lambda p, t: Value(score=1.0, prune=p == "Pab?"))
    assert run.outputs == ["c?" + run.outputs[0][2:]]
    assert [text for text, _ in run.expansions] == ["ab?", "c?"]


def test_without_a_scorer_the_probable_solution_stays() -> None:
    run = run_got(["dcba?"], scorer=None, k=40)
    assert run.outputs == ["dcba?abcd\n"]


@settings(max_examples=50)
@given(
    tokens=st.sampled_from([None, 1, 20, 55, 200]),
    nodes=st.sampled_from([None, 1, 5, 9, 30]),
    k=st.integers(1, 4),
    num_parts=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_no_budget_is_exceeded(
    tokens: int | None, nodes: int | None, k: int, num_parts: int, seed: int
) -> None:
    parts = ["ab?", "d?", "cc?", "a?", "bd?"][:num_parts]
    run = run_got(parts, seed, k=k, attempts=2, budget=Budget(tokens=tokens, nodes=nodes))
    assert tokens is None or run.tree.generated_tokens <= tokens
    assert nodes is None or len(run.tree) - 1 <= nodes
    if tokens is None and nodes is None:
        assert run.outputs[0].partition("?")[2].count("\n") == 1
        assert len(run.outputs) == 1


def test_a_plan_needs_parts() -> None:
    with pytest.raises(InputError, match=r"plan.parts: expected at least one, got none"):
        run_got([])
