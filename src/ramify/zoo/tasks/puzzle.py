"""Number puzzles: reach a target from four numbers, one operation a line.

    puzzle 4 7 8 2 -> 24
    8 / 2 = 4 left 4 4 7        every number is used once; results are whole, 0 to 999
    7 * 4 = 28 left 4 28
    28 - 4 = 24 left 24

The tree-of-thoughts "game of 24" family (Yao et al. 2023) with varied targets. Any right
derivation counts. A judge question may follow any line: `JUDGE_SUFFIX` asks whether the target can
still be reached from what is left, and the model answers with one token, `YES` or `NO`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ramify.zoo.tasks import puzzle_moves as moves
from ramify.zoo.tasks.base import Problem, Verdict, illegal, solved, unfinished
from ramify.zoo.tasks.split import is_heldout

JUDGE_SUFFIX = "?"
YES, NO = " yes", " no"

_PROMPT = re.compile(r"puzzle((?: [0-9]{1,3})+) -> ([0-9]{1,3})\n", re.ASCII)
_LINE = re.compile(
    r"([0-9]{1,3}) ([-+*/]) ([0-9]{1,3}) = ([0-9]{1,3}) left((?: [0-9]{1,3})+)", re.ASCII
)


def prompt_of(numbers: Sequence[int], target: int) -> str:
    """The prompt of a puzzle, numbers in the order given."""
    return f"puzzle {' '.join(map(str, numbers))} -> {target}\n"


def parse_prompt(prompt: str) -> tuple[list[int], int]:
    """The numbers and the target of a prompt; ValueError when it is not a puzzle."""
    match = _PROMPT.fullmatch(prompt)
    if match is None:
        raise ValueError(f"prompt: expected 'puzzle a b c d -> target', got {prompt!r}")
    return [int(word) for word in match[1].split()], int(match[2])


def line_of(a: int, op: str, b: int, result: int, left: Sequence[int]) -> str:
    """One line of a derivation, with its newline."""
    return f"{a} {op} {b} = {result} left {' '.join(map(str, left))}\n"


class Puzzle:
    """The puzzle family; see the module's text for the rules."""

    name = "puzzle"
    max_tokens = 64

    def generate(self, rng: np.random.Generator, *, heldout: bool = False, **shape: int) -> Problem:
        """A solvable puzzle, uniform over start states, then over the targets of that state.

        shape: `max_winning`: at most this many of the first moves may lead to a solution.
        """
        max_winning = shape.get("max_winning", 24)
        while True:
            numbers = np.sort(rng.integers(1, moves.MAX_NUMBER + 1, size=(1, 4)), axis=1)
            target = int(rng.integers(moves.MIN_TARGET, moves.MAX_TARGET + 1))
            key = moves.problem_key(numbers, np.array([target]))
            if bool(is_heldout(key)[0]) != heldout:
                continue
            finals = moves.final_values(numbers)[0]
            winning = int((finals == target).any(axis=(1, 2)).sum())
            if 0 < winning <= max_winning:
                break
        leaf = int(rng.choice(np.flatnonzero(finals.reshape(-1) == target)))
        shown = rng.permutation(numbers[0]).tolist()
        return Problem(
            task=self.name,
            prompt=prompt_of(shown, target),
            answer=derivation(numbers[0].tolist(), leaf),
            meta={"numbers": shown, "target": target, "winning_first_moves": winning},
        )

    def check(self, problem: Problem, text: str) -> Verdict:
        """Right when legal lines use every number, leave the target alone, and nothing follows."""
        numbers, target = parse_prompt(problem.prompt)
        return _judge(numbers, target, text.rstrip().split("\n") if text.strip() else [])

    def check_partial(self, problem: Problem, text: str) -> Verdict:
        """Judge the finished lines; a last line without its newline is still being written."""
        numbers, target = parse_prompt(problem.prompt)
        return _judge(numbers, target, text.split("\n")[:-1])


def derivation(numbers: Sequence[int], leaf: int) -> str:
    """The three lines of final value `leaf` (an index into [24, 12, 4]) from ascending numbers."""
    state = np.array([numbers], dtype=np.int64)
    text = ""
    for move in (leaf // 48, leaf // 4 % 12, leaf % 4):
        a, b, result, state = moves.apply_moves(state, np.array([move]))
        left = state[0].tolist()
        text += line_of(int(a[0]), moves.OPS[move % 4], int(b[0]), int(result[0]), left)
    return text


def _judge(numbers: list[int], target: int, lines: list[str]) -> Verdict:
    """Follow the lines from the start state."""
    state, num_steps = Counter(numbers), len(numbers) - 1
    for index, line in enumerate(lines):
        if state.total() == 1:
            return illegal(f"line {index + 1}: nothing is left to combine, got {line!r}")
        after = _step(state, line)
        if isinstance(after, str):
            return illegal(f"line {index + 1}: {after}")
        state = after
    if state.total() > 1:
        return unfinished(len(lines) / (num_steps + 1), f"{state.total()} numbers left")
    (last,) = state
    if last == target:
        return solved(f"reached {target}")
    # all numbers are used up: legal lines, but no continuation can help
    return illegal(f"ended at {last}, expected {target}")


def _step(state: Counter[int], line: str) -> Counter[int] | str:
    """The state after a line, or what is wrong with the line."""
    match = _LINE.fullmatch(line)
    if match is None:
        return f"expected 'a op b = c left ...', got {line!r}"
    a, op, b, result = int(match[1]), match[2], int(match[3]), int(match[4])
    used = Counter([a, b])
    if used - state:
        return f"{a} and {b} are not both among {sorted(state.elements())}"
    expected = _compute(a, op, b)
    if expected is None or expected != result:
        return f"{a} {op} {b} is not {result} (whole results from 0 to {moves.MAX_VALUE} only)"
    after = state - used + Counter([result])
    if Counter(int(word) for word in match[5].split()) != after:
        return f"left: expected {sorted(after.elements())}, got{match[5]}"
    return after


def _compute(a: int, op: str, b: int) -> int | None:
    """a op b where it is a whole number from 0 to MAX_VALUE."""
    if op == "/":
        return a // b if b != 0 and a % b == 0 else None
    result = {"+": a + b, "-": a - b, "*": a * b}[op]
    return result if 0 <= result <= moves.MAX_VALUE else None
