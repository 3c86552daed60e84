"""Tree of thoughts on hand-made trees: copies, cuts, ranks, backtracking, budgets."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.core.errors import InputError
from ramify.core.params import SamplingParams
from ramify.search import Budget, Expand, Judge, Prune, Score, TreeOfThoughts, Value
from ramify.search.tree import NodeState
from ramify.testing.scripted import ScriptedRun, run_controller
from ramify.testing.scripted_model import table_model

STEP = SamplingParams(max_tokens=4, stop="\n", include_stop_str_in_output=True)
JUDGE = Judge(suffix="?", positive="y", negative="n")
LINES = ["a\n", "b\n", "c\n"]


def world(first: dict[str, float], hope: dict[str, float]) -> dict[str, dict[str, float]]:
    """Two steps of one letter each, any of `first`; `hope[text]` is what the judge believes."""
    table: dict[str, dict[str, float]] = {"": first}
    for one in first:
        table |= {one: {"\n": 1.0}, f"{one}\n": first}
        table |= {f"{one}\n{two}": {"\n": 1.0} for two in first}
    table |= {f"{text}?": {"y": p, "n": 1 - p} for text, p in hope.items() if 0 < p < 1}
    return table


TABLE = world({"a": 0.5, "b": 0.3, "c": 0.2}, {"": 0.5, "a\n": 0.2, "b\n": 0.9, "c\n": 0.4})


def solve(answer: str, *, illegal: str = "!") -> object:
    def scorer(prompt: str, text: str) -> Value:
        assert prompt == "P"
        is_wrong = text.startswith(illegal) or (text.count("\n") == 2 and text != answer)
        return Value(score=0.5, solved=text == answer, prune=is_wrong)

    return scorer


def run_tot(answer: str = "b\nc\n", seed: int = 0, **options: object) -> ScriptedRun:
    options = {"k": 6, "width": 1, "depth": 2, "judge": JUDGE} | options
    options.setdefault("scorer", solve(answer))
    return run_controller(
        table_model(TABLE),
        TreeOfThoughts(STEP, **options),  # type: ignore[arg-type]
        "P",
        seed=seed,
    )


def expanded(run: ScriptedRun) -> list[str]:
    return [run.tree.completion_text(a.node) for a in run.actions if isinstance(a, Expand)]


def test_expands_what_the_judge_ranks_first_and_stops_when_solved() -> None:
    run = run_tot(k=12)
    assert run.finish is not None
    assert run.finish.solved
    assert run.outputs == ["b\nc\n"]
    assert expanded(run) == ["", "b\n"]


def test_without_a_judge_the_score_ranks_then_the_probability() -> None:
    run = run_tot(k=12, judge=None)
    assert expanded(run)[:2] == ["", "a\n"]
    assert not any(isinstance(a, Score) for a in run.actions)


def test_copies_are_cut_and_the_first_stays() -> None:
    run = run_tot(k=12)
    first = [run.tree[n] for n in run.tree[0].children]
    alive = [n.text for n in first if n.state is not NodeState.PRUNED]
    assert sorted(alive) == LINES
    for line in LINES:
        same = [n for n in first if n.text == line]
        assert [n.state is NodeState.PRUNED for n in same] == [False] + [True] * (len(same) - 1)
    assert run.finish is not None
    assert run.finish.stats["copies"] >= 9


def test_copies_by_state() -> None:
    """Texts that arrive at one state are copies, whatever path they took."""
    run = run_tot(k=12, state=lambda text: text.count("\n"), answer="none")
    alive = [n for n in run.tree if n.id and n.state is not NodeState.PRUNED]
    assert [run.tree.completion_text(n.id).count("\n") for n in alive] == [1]


def test_illegal_thoughts_are_neither_judged_nor_expanded() -> None:
    run = run_tot(k=12, scorer=solve("a\na\n", illegal="b"))
    asked = [run.tree.completion_text(a.node) for a in run.actions if isinstance(a, Score)]
    assert "b\n" not in asked
    assert "b\n" not in expanded(run)
    assert run.finish is not None
    assert run.finish.stats["illegal"] >= 1


def test_a_step_cut_short_is_dropped() -> None:
    params = SamplingParams(max_tokens=1, stop="\n", include_stop_str_in_output=True)
    controller = TreeOfThoughts(params, k=3, width=1, depth=2)
    run = run_controller(table_model(TABLE), controller, "P")
    assert run.finish is not None
    assert run.finish.outputs == ()
    assert run.finish.stats["cut_short"] == 3


def test_breadth_first_keeps_width_per_level_and_prunes_the_rest() -> None:
    run = run_tot("none", k=12, width=2, backtrack=False)
    assert expanded(run) == ["", "b\n", "c\n"]
    (node,) = [n for n in run.tree[0].children if run.tree[n].text == "a\n"][:1]
    assert Prune(node=node) in run.actions
    assert run.finish is not None
    assert not run.finish.solved
    assert run.outputs == ["b\n", "c\n"]  # the scorer refused every answer


def test_backtracks_to_the_reserve() -> None:
    """The judge believes in b, the answer lies under a, its last choice."""
    assert not run_tot("a\nc\n", k=12, backtrack=False).finish.solved  # type: ignore[union-attr]
    run = run_tot("a\nc\n", k=12)
    assert expanded(run) == ["", "b\n", "c\n", "a\n"]
    assert run.outputs == ["a\nc\n"]


def test_without_a_limit_the_reserve_is_the_end() -> None:
    run = run_tot("none", k=12)
    assert expanded(run) == ["", "b\n", "c\n", "a\n"]
    assert run.finish is not None
    assert not run.finish.solved


def test_with_a_budget_it_samples_again_until_solved() -> None:
    """One branch at a time: the root and b must be expanded again to meet the answer."""
    run = run_tot("b\nc\n", k=1, budget=Budget(tokens=400))
    assert run.finish is not None
    assert run.finish.solved
    assert len(expanded(run)) > len(set(expanded(run)))
    assert run.tree.generated_tokens < 400


@settings(max_examples=30)
@given(
    tokens=st.integers(1, 90),
    k=st.integers(1, 7),
    width=st.integers(1, 4),
    seed=st.integers(0, 99),
    judge=st.sampled_from([JUDGE, None]),
    backtrack=st.booleans(),
)
def test_the_budget_is_never_exceeded_and_used_when_backtracking(
    tokens: int, k: int, width: int, seed: int, judge: Judge | None, backtrack: bool
) -> None:
    run = run_tot(
        "none", seed, k=k, width=width, judge=judge, budget=Budget(tokens=tokens),
        backtrack=backtrack,
    )  # fmt: skip
    assert run.tree.generated_tokens <= tokens
    if backtrack:
        # a step takes two tokens; the first is only started with room for max_tokens
        assert run.tree.generated_tokens >= (tokens - 1 if tokens >= STEP.max_tokens else 0)


def test_no_scorer_returns_the_answers_the_judge_likes_best() -> None:
    table = TABLE | {f"{a}\n{b}\n?": {"y": 0.1, "n": 0.9} for a in "abc" for b in "abc"}
    table["b\na\n?"] = {"y": 0.8, "n": 0.2}
    controller = TreeOfThoughts(STEP, k=12, width=2, depth=2, judge=JUDGE)
    run = run_controller(table_model(table), controller, "P")
    assert run.outputs[0] == "b\na\n"
    assert len(run.outputs) == 2
    assert run.finish is not None
    assert run.tree[run.finish.outputs[0]].score == pytest.approx(0.8)


def test_an_end_token_ends_the_answer_early() -> None:
    table = {"": {"a": 1.0}, "a": {"\n": 1.0}, "a\n": {"b": 1.0}, "a\nb": {"": 1.0}}
    controller = TreeOfThoughts(STEP, k=2, width=1, depth=5)
    run = run_controller(table_model(table), controller, "P")
    assert run.outputs == ["a\nb"]


def test_unfinished_searches_return_their_deepest_thoughts() -> None:
    run = run_tot("none", k=2, width=3, depth=5, budget=Budget(tokens=16))
    assert run.finish is not None
    assert run.outputs
    depths = {text.count("\n") for text in run.outputs}
    assert depths == {max(t.count("\n") for t in texts_alive(run))}


def texts_alive(run: ScriptedRun) -> list[str]:
    return [run.tree.completion_text(n.id) for n in run.tree if n.state is NodeState.IDLE]


def test_a_full_context_is_survived() -> None:
    controller = TreeOfThoughts(STEP, k=3, width=2, depth=2, budget=Budget(tokens=50))
    run = run_controller(table_model(TABLE, max_context=3), controller, "P")
    assert run.finish is not None
    assert set(run.outputs) <= set(LINES)
    assert run.outputs


def test_a_thought_expanded_again_is_sampled_hotter() -> None:
    run = run_tot("none", k=2, heat=0.4, budget=Budget(tokens=120))
    heats = [a.params.temperature for a in run.actions if isinstance(a, Expand) and a.node == 0]
    assert len(heats) > 4
    assert heats == pytest.approx([1.0, 1.4, 1.8] + [2.0] * (len(heats) - 3))
    cold = run_tot("none", k=2, heat=0.0, budget=Budget(tokens=120))
    assert {a.params.temperature for a in cold.actions if isinstance(a, Expand)} == {1.0}
    with pytest.raises(InputError, match="heat: expected a number >= 0"):
        run_tot(heat=-0.1)


@pytest.mark.parametrize("name", ["k", "width", "depth"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5])
def test_sizes_are_checked(name: str, value: object) -> None:
    options = {"k": 1, "width": 1, "depth": 1, name: value}
    with pytest.raises(InputError, match=f"{name}: expected an int >= 1"):
        TreeOfThoughts(STEP, **options)  # type: ignore[arg-type]


def test_k_may_differ_by_level() -> None:
    run = run_tot("none", k=[5, 2], budget=Budget(nodes=30))
    first = {a.node: a.k for a in reversed(run.actions) if isinstance(a, Expand)}
    by_text = {run.tree.completion_text(node): k for node, k in first.items()}
    assert by_text[""] == 5
    assert by_text["b\n"] == 2
    assert len(run.tree) <= 31
