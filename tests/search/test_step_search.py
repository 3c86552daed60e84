"""What holds for every search over steps, on random models, values, budgets and contexts."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.core.errors import InputError
from ramify.core.params import SamplingParams
from ramify.core.seeds import mix64
from ramify.search import Budget, Controller, Judge, NodeScorer, TreeView, Value, make_controller
from ramify.search.tree import NodeState
from ramify.testing.scripted import ScriptedRun, run_controller
from ramify.testing.scripted_model import ScriptedModel, lines_model

STEP = SamplingParams(max_tokens=4, stop="\n", include_stop_str_in_output=True)
JUDGE = Judge(suffix="?", positive="y", negative="n")
SEARCHES = ["tot", "tot_dfs", "dvts", "rebase", "mcts", "smc"]


def make(name: str, width: int, k: int, **options: object) -> Controller:
    """A search by name, with the sizes that it knows."""
    sizes: dict[str, object] = {
        "tot": {"width": width, "k": k},
        "tot_dfs": {"k": k, "threshold": 0.1},
        "dvts": {"width": width, "k": k},
        "rebase": {"width": width},
        "mcts": {"k": k, "parallel": width, "simulations": 40},
        "smc": {"width": width},
    }
    return make_controller(name, params=STEP, **sizes[name], **options)  # type: ignore[arg-type]


def random_scorer(seed: int) -> Callable[[str, str], Value]:
    """Scores and cuts by chance, but always the same for a text."""

    def scorer(prompt: str, text: str) -> Value:
        dice = mix64(seed ^ mix64(int.from_bytes(text.encode(), "big") % 2**63))
        return Value(score=dice % 11 / 10, prune=dice % 7 == 0)

    return scorer


def random_model(seed: int, max_context: int | None) -> ScriptedModel:
    """Four letters, ends of lines and ends of texts with chances that the seed and path give."""

    def next_logprobs(path: tuple[int, ...]) -> dict[int, float]:
        dice = mix64(seed ^ mix64(hash(path) & (2**62 - 1)))
        chances = {token: 1 + (dice >> 4 * token) % 9 for token in (0, 2, 3, 4, 5)}
        chances[5] += 9
        return {token: math.log(n / sum(chances.values())) for token, n in chances.items()}

    vocab = ["", "P", "a", "b", "c", "\n", "?", "y", "n"]
    return ScriptedModel(
        next_logprobs=next_logprobs, vocab=vocab, eos_token_ids=(0,), max_context=max_context
    )


def shape(run: ScriptedRun) -> list[tuple[int | None, str, float | None, NodeState]]:
    return [(n.parent, n.text, n.score, n.state) for n in run.tree]


@settings(max_examples=150)
@given(
    name=st.sampled_from(SEARCHES),
    width=st.integers(1, 4),
    k=st.integers(1, 4),
    seed=st.integers(0, 999),
    judge=st.sampled_from([JUDGE, None]),
    tokens=st.sampled_from([None, 1, 5, 17, 60]),
    nodes=st.sampled_from([None, 1, 6, 25]),
    max_context=st.sampled_from([None, 2, 9]),
)
def test_no_budget_is_exceeded_and_the_same_seed_gives_the_same_tree(
    name: str,
    width: int,
    k: int,
    seed: int,
    judge: Judge | None,
    tokens: int | None,
    nodes: int | None,
    max_context: int | None,
) -> None:
    model = random_model(seed, max_context)
    budget = Budget(tokens=tokens, nodes=nodes)

    def once() -> ScriptedRun:
        options = {"depth": 3, "scorer": random_scorer(seed), "judge": judge, "budget": budget}
        return run_controller(model, make(name, width, k, **options), "P", seed=seed)

    run = once()
    assert tokens is None or run.tree.generated_tokens <= tokens
    assert nodes is None or len(run.tree) - 1 <= nodes
    assert shape(run) == shape(once())
    assert run.finish is not None
    assert all(run.tree[n].state is NodeState.IDLE for n in run.finish.outputs)
    # what is left over grows no more: every branch was waited for
    assert all(n.state is not NodeState.GROWING for n in run.tree if n.parent is not None)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_token_budget_is_used(name: str) -> None:
    """Unless a search has nothing left to look at, less than an expansion's step remains."""
    options = {"depth": 3, "scorer": lambda p, t: 0.5, "budget": Budget(tokens=100)}
    run = run_controller(lines_model("abcd"), make(name, 2, 2, **options), "P")
    assert 100 - STEP.max_tokens < run.tree.generated_tokens <= 100


@pytest.mark.parametrize("name", SEARCHES)
def test_time_is_a_budget(name: str) -> None:
    options = {"depth": 3, "scorer": lambda p, t: 0.5, "budget": Budget(seconds=10.0)}
    run = run_controller(lines_model("abcd"), make(name, 2, 2, **options), "P", step_s=1.0)
    # expansions are started before the tenth second, and a line takes two steps
    assert len(run.steps) <= 11
    assert run.finish is not None


@pytest.mark.parametrize("name", SEARCHES)
def test_an_answer_that_is_good_enough_ends_it(name: str) -> None:
    def scorer(prompt: str, text: str) -> float:
        return 0.8 if text.count("\n") == 3 else 0.9  # a step, however good, is no answer

    options = {"depth": 3, "scorer": scorer, "budget": Budget(tokens=400)}
    run = run_controller(lines_model(), make(name, 2, 2, enough=0.8, **options), "P")
    assert run.finish is not None
    assert run.finish.solved
    assert run.outputs[0].count("\n") == 3
    missed = run_controller(lines_model(), make(name, 2, 2, enough=0.85, **options), "P")
    assert missed.finish is not None
    assert not missed.finish.solved


@pytest.mark.parametrize("name", SEARCHES)
def test_scorers_of_nodes_and_of_batches(name: str) -> None:
    class Batch:
        def __init__(self) -> None:
            self.sizes: list[int] = []

        def score_batch(self, prompt: str, texts: list[str]) -> list[float]:
            assert prompt == "P"
            self.sizes.append(len(texts))
            return [text.count("b") / 3 for text in texts]

    def of_node(tree: TreeView, node: int) -> float:
        return tree.completion_text(node).count("b") / 3

    def one(prompt: str, text: str) -> float:
        return text.count("b") / 3

    budget, batch = Budget(tokens=60), Batch()
    runs = [
        run_controller(lines_model(), make(name, 2, 3, depth=3, scorer=scorer, budget=budget), "P")
        for scorer in (one, NodeScorer(of_node), batch)
    ]
    assert shape(runs[0]) == shape(runs[1]) == shape(runs[2])
    assert max(batch.sizes) > 1


@pytest.mark.parametrize("name", SEARCHES)
def test_without_a_scorer_the_probability_of_the_path_ranks(name: str) -> None:
    run = run_controller(lines_model("ab"), make(name, 2, 2, depth=2), "P")
    scores = {n.score for n in run.tree if n.score is not None}
    # half for each letter, the end of a line is sure
    assert sorted(scores) == pytest.approx([0.5**0.5] * len(scores))
    assert scores


def test_a_scorer_that_forgets_a_text_is_named() -> None:
    class Short:
        def score_batch(self, prompt: str, texts: list[str]) -> list[float]:
            return [0.5] * (len(texts) - 1)

    with pytest.raises(InputError, match="scorer: expected 3 verdicts, got 2"):
        run_controller(lines_model(), make("rebase", 12, 1, depth=2, scorer=Short()), "P")


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("tokens", [1, 3])
def test_a_budget_below_one_step_gives_no_output(name: str, tokens: int) -> None:
    """With room for less than max_tokens nothing is known of a step's length: it is not begun."""
    options = {"depth": 3, "scorer": lambda p, t: 0.5, "budget": Budget(tokens=tokens)}
    run = run_controller(lines_model(), make(name, 2, 2, **options), "P")
    assert run.outputs == []
    assert run.expansions == []
    assert run.finish is not None
    assert run.finish.stats["rounds"] == 0
