"""List work: sort up to 32 digits, merge two sorted lists.

    sort 3 1 4 1 5              merge 1 3 5 | 2 2 9
    1 1 3 4 5                   1 2 2 3 5 9

The leaf and inner steps of graph-of-thoughts sorting (Besta et al. 2024). The answer is unique.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ramify.zoo.tasks.base import Problem, Verdict, illegal, solved, unfinished
from ramify.zoo.tasks.split import is_heldout

MAX_DIGITS = 32
# shorter lists are so few that holding any of them out would leave nothing to draw
MIN_HELDOUT_DIGITS = 8


def list_key(digits: Sequence[int], begin_second: int = 0) -> int:
    """The identity of a list problem: its digits as a number, folded into 64 bits."""
    value = begin_second + 1
    for digit in digits:
        value = (value * 11 + digit + 1) % (1 << 61)
    return value


def is_heldout_list(digits: Sequence[int], begin_second: int = 0) -> bool:
    """Whether training must never see this list (pair)."""
    if len(digits) < MIN_HELDOUT_DIGITS:
        return False
    key = np.array([list_key(digits, begin_second)], dtype=np.uint64)
    return bool(is_heldout(key)[0])


def answer_of(digits: Sequence[int]) -> str:
    """The one right answer, with its newline."""
    return " ".join(map(str, sorted(digits))) + "\n"


def draw_sort(rng: np.random.Generator, size: int, heldout: bool) -> list[int]:
    """Digits to sort from the asked side of the split."""
    while True:
        digits = rng.integers(0, 10, size).tolist()
        if is_heldout_list(digits) == heldout:
            return digits


def draw_merge(
    rng: np.random.Generator, left: int, right: int, heldout: bool
) -> tuple[list[int], list[int]]:
    """Two sorted lists from the asked side of the split."""
    while True:
        first = np.sort(rng.integers(0, 10, left)).tolist()
        second = np.sort(rng.integers(0, 10, right)).tolist()
        if is_heldout_list(first + second, left) == heldout:
            return first, second


class _Lists:
    """What sorting and merging share: the digits of the prompt and the check."""

    name = ""
    max_tokens = MAX_DIGITS + 8

    def check(self, problem: Problem, text: str) -> Verdict:
        """Right when the digits are the prompt's, ascending; the score counts right places."""
        digits = self._digits(problem)
        got = _parse(text.strip())
        if got is None:
            return illegal(f"expected digits between single spaces, got {text!r}")
        expected = sorted(digits)
        if got == expected:
            return solved("sorted")
        wrong = sum(a != b for a, b in zip(got, expected, strict=False))
        wrong += abs(len(got) - len(expected))
        reason = f"{wrong} of {len(expected)} places are wrong"
        score = max(0.0, 1 - wrong / len(expected)) * 0.99
        return Verdict(solved=False, score=score, reason=reason, legal=False)

    def check_partial(self, problem: Problem, text: str) -> Verdict:
        """Legal while ascending, no digit is used too often, and none is left behind.

        A smaller digit that is still to come would break the order, so no look ahead is needed.
        """
        digits = self._digits(problem)
        if text.endswith("\n"):
            return self.check(problem, text)
        got = _parse(text.strip())
        if got is None:
            return illegal(f"expected digits between single spaces, got {text!r}")
        if got != sorted(got):
            return illegal("not ascending")
        surplus = Counter(got) - Counter(digits)
        if surplus:
            return illegal(f"too many of {sorted(surplus)}")
        if got and (behind := [d for d in sorted(Counter(digits) - Counter(got)) if d < got[-1]]):
            return illegal(f"left behind {behind}")
        return unfinished(len(got) / (len(digits) + 1), f"{len(got)} of {len(digits)} digits")

    def _digits(self, problem: Problem) -> list[int]:
        words = problem.prompt.split()
        rest = [word for word in words[1:] if word != "|"]
        digits = _parse(" ".join(rest))
        if words[:1] != [self.name] or not digits:
            raise ValueError(f"prompt: expected '{self.name} 3 1 2', got {problem.prompt!r}")
        return digits


class Sort(_Lists):
    """Sort digits."""

    name = "sort"

    def generate(self, rng: np.random.Generator, *, heldout: bool = False, **shape: int) -> Problem:
        """shape: `size`, the number of digits (default 8 to 32, drawn)."""
        size = shape.get("size") or int(rng.integers(8, MAX_DIGITS + 1))
        digits = draw_sort(rng, size, heldout)
        prompt = f"sort {' '.join(map(str, digits))}\n"
        return Problem(task=self.name, prompt=prompt, answer=answer_of(digits), meta={"size": size})


class Merge(_Lists):
    """Merge two sorted lists of digits."""

    name = "merge"

    def generate(self, rng: np.random.Generator, *, heldout: bool = False, **shape: int) -> Problem:
        """shape: `size`, the digits of both lists together (default 8 to 32, drawn)."""
        size = shape.get("size") or int(rng.integers(8, MAX_DIGITS + 1))
        left = int(rng.integers(1, size))
        first, second = draw_merge(rng, left, size - left, heldout)
        prompt = f"merge {' '.join(map(str, first))} | {' '.join(map(str, second))}\n"
        answer = answer_of(first + second)
        return Problem(task=self.name, prompt=prompt, answer=answer, meta={"size": size})


def _parse(text: str) -> list[int] | None:
    """The digits of a line, or None when something else stands there."""
    if not text:
        return []
    words = text.split(" ")
    if all(len(word) == 1 and word in "0123456789" for word in words):
        return [int(word) for word in words]
    return None
