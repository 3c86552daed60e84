"""The game of 24 by tree of thoughts and by MCTS, beside plain greedy decoding.

    python examples/game_of_24.py

The bundled model writes one operation a line and says of a state whether the target can still be
reached; a checker that knows the rules, and looks nowhere ahead, cuts lines that break them.
Sources: Tree of Thoughts (Yao et al., NeurIPS 2023), UCT (Kocsis and Szepesvári, ECML 2006).
"""

from __future__ import annotations

from dataclasses import dataclass

from ramify import LLM, SamplingParams
from ramify.zoo.steps import STEPS, search_options
from ramify.zoo.tasks import Problem, get_task
from ramify.zoo.tasks.puzzle import prompt_of

HANDS = [(4, 9, 10, 13), (1, 8, 9, 12), (5, 6, 7, 8), (2, 7, 8, 9), (1, 5, 8, 12)]
TARGET = 24
SIMULATIONS = 24


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What a method made of a hand."""

    text: str
    solved: bool
    generated_tokens: int


def problem_of(hand: tuple[int, ...]) -> Problem:
    """A hand of the game as a puzzle for the bundled model."""
    return Problem(task="puzzle", prompt=prompt_of(hand, TARGET))


def greedy(llm: LLM, problem: Problem) -> Attempt:
    """The most probable token, one after another."""
    (output,) = llm.generate(problem.prompt, SamplingParams(temperature=0.0, max_tokens=64))
    return _attempt(problem, output.outputs[0].text, output.usage.generated_tokens)


def search(llm: LLM, problem: Problem, algorithm: str) -> Attempt:
    """A search over lines, with the settings that the zoo found for puzzles."""
    options = search_options(algorithm, STEPS["puzzle"], problem, seed=0)
    if algorithm == "mcts":
        options["simulations"] = SIMULATIONS
    result = llm.search(problem.prompt, algorithm, **options)
    text = result.best.text if result.best is not None else ""
    return _attempt(problem, text, result.usage.generated_tokens)


def _attempt(problem: Problem, text: str, generated_tokens: int) -> Attempt:
    verdict = get_task("puzzle").check(problem, text)
    return Attempt(text=text, solved=verdict.solved, generated_tokens=generated_tokens)


def main(llm: LLM) -> dict[str, list[Attempt]]:
    """Play every hand by every method; prints and returns the attempts."""
    attempts: dict[str, list[Attempt]] = {"greedy": [], "tot": [], "mcts": []}
    for hand in HANDS:
        problem = problem_of(hand)
        attempts["greedy"].append(greedy(llm, problem))
        for algorithm in ("tot", "mcts"):
            attempts[algorithm].append(search(llm, problem, algorithm))
        print(f"{' '.join(map(str, hand))} -> {TARGET}")
        for method, made in attempts.items():
            last = made[-1]
            line = last.text.strip().replace("\n", "; ") or "(nothing)"
            print(f"  {method:6} {'solved' if last.solved else 'failed'}  {line}")
    for method, made in attempts.items():
        solved, tokens = sum(a.solved for a in made), sum(a.generated_tokens for a in made)
        print(f"{method}: {solved} of {len(made)} solved with {tokens} generated tokens")
    return attempts


if __name__ == "__main__":
    main(LLM("ramify-tiny"))
