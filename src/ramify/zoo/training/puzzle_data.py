"""Puzzle trees: solutions to imitate, legal detours to compute, a judge question at every state.

The whole space (8855 start states, 1152 sequences of moves each) is enumerated once; a batch is
then drawn, labelled and rendered with array operations alone. Solutions are uniform among all
sequences of moves that reach the target. Judge labels come from the same table, so they are exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ramify.zoo.tasks import puzzle_moves as moves
from ramify.zoo.tasks.puzzle import JUDGE_SUFFIX, NO, YES
from ramify.zoo.tasks.split import is_heldout
from ramify.zoo.training.trees import JUDGE, PUZZLE, TreeColumns, Trees
from ramify.zoo.training.vocab import BOS, EOS, PAD, token_ids

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_IDS = token_ids()
_OP = np.array([_IDS[f" {op}"] for op in moves.OPS])
_NEWLINE, _EQUALS, _LEFT = _IDS["\n"], _IDS[" ="], _IDS[" left"]
_SUFFIX, _YES, _NO = _IDS[JUDGE_SUFFIX], _IDS[YES], _IDS[NO]

NO_BOS_SHARE = 0.1  # some prompts come without <bos>, so that its absence does no harm
UNSOLVABLE_SHARE = 0.08


def _number_table(first: str) -> Ints:
    """[1000, 3] tokens of each number, PAD in front; `first` precedes the first digit."""
    table = np.full((moves.MAX_VALUE + 1, 3), PAD, dtype=np.int64)
    for value in range(moves.MAX_VALUE + 1):
        digits = str(value)
        ids = [_IDS[first + digits[0]], *(_IDS[digit] for digit in digits[1:])]
        table[value, 3 - len(ids) :] = ids
    return table


_PLAIN, _SPACED = _number_table(""), _number_table(" ")


class PuzzleData:
    """The enumerated puzzle space and the training problems in it."""

    def __init__(self, max_number: int = moves.MAX_NUMBER) -> None:
        numbers = moves.all_multisets()
        self.numbers = numbers[numbers[:, -1] <= max_number]
        self.finals = moves.final_values(self.numbers).reshape(len(self.numbers), -1)
        self.order = np.argsort(self.finals, axis=1, kind="stable").astype(np.int16)
        self.state, self.target, self.begin, self.count = self._problems()

    def _problems(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Every solvable training problem: its state, target, and run of leaves in `order`."""
        targets = np.arange(moves.MIN_TARGET, moves.MAX_TARGET + 1)
        ascending = np.take_along_axis(self.finals, self.order.astype(np.int64), axis=1)
        begin = np.stack([(ascending < t).sum(axis=1) for t in targets], axis=1)
        end = np.stack([(ascending <= t).sum(axis=1) for t in targets], axis=1)
        state, column = np.nonzero(end > begin)
        keys = moves.problem_key(self.numbers[state], targets[column])
        keep = ~is_heldout(keys)
        state, column = state[keep], column[keep]
        first = begin[state, column]
        return state, targets[column], first, end[state, column] - first

    def draw(self, rng: np.random.Generator, num_trees: int) -> Trees:
        """Trees around solvable problems (about 190 tokens each)."""
        rows = rng.integers(0, len(self.state), num_trees)
        return _solvable_trees(self, rng, rows)

    def draw_unsolvable(self, rng: np.random.Generator, num_trees: int) -> Trees:
        """Trees of prompts whose target cannot be reached: the judge must say no."""
        state = rng.integers(0, len(self.numbers), 4 * num_trees + 8)
        target = rng.integers(moves.MIN_TARGET, moves.MAX_TARGET + 1, len(state))
        reached = (self.finals[state] == target[:, None]).any(axis=1)
        heldout = is_heldout(moves.problem_key(self.numbers[state], target))
        pick = np.flatnonzero(~reached & ~heldout)[:num_trees]
        state, target = state[pick], target[pick]
        columns = TreeColumns(len(pick))
        root = columns.add(_prompt(rng, self.numbers[state], target))
        _ask(columns, root, np.full(len(pick), False))
        return columns.build()


def _solvable_trees(data: PuzzleData, rng: np.random.Generator, rows: Ints) -> Trees:
    """Two solutions and five detours per problem, the judge asked at each inner state."""
    state, target = data.state[rows], data.target[rows]
    numbers, n = data.numbers[state], len(rows)
    reaches = (data.finals[state] == target[:, None]).reshape(n, 24, 12, 4)
    columns = TreeColumns(n)
    root = columns.add(_prompt(rng, numbers, target))
    _ask(columns, root, np.full(n, True))
    for whole in (True, False):
        leaf = _random_leaf(data, rng, rows)
        _solution(columns, rng, root, numbers, leaf, reaches, whole=whole)
    for deep in (True, True, False, False):
        _detour(columns, rng, root, numbers, reaches, deep=deep)
    return columns.build()


def _random_leaf(data: PuzzleData, rng: np.random.Generator, rows: Ints) -> Ints:
    """A uniform solution of each problem, as an index into [24, 12, 4]."""
    offset = (rng.random(len(rows)) * data.count[rows]).astype(np.int64)
    return data.order[data.state[rows], data.begin[rows] + offset].astype(np.int64)


def _solution(
    columns: TreeColumns,
    rng: np.random.Generator,
    root: int,
    numbers: Ints,
    leaf: Ints,
    reaches: Flags,
    *,
    whole: bool,
) -> None:
    """Two lines of a solution; as a whole, also the third and a detour after the first."""
    rows, yes = np.arange(len(leaf)), np.full(len(leaf), True)
    first, second, third = leaf // 48, leaf // 4 % 12, leaf % 4
    line, three = _line(numbers, first)
    one = _add_line(columns, root, line, follow=True)
    _ask(columns, one, yes)
    line, two = _line(three, second)
    below = _add_line(columns, one, line, follow=True)
    _ask(columns, below, yes)
    if not whole:
        return
    line, _ = _line(two, third)
    ended = np.concatenate([_newline(line), line, _newline(line)], axis=1)
    columns.add(ended, parent=below, learn=True, tail=EOS, kind=PUZZLE)
    good = np.asarray(reaches[rows, first].any(axis=2))  # [trees, 12]
    other = _pick(rng, ~good, moves.expand(three)[:, :, 0] >= 0)
    line, _ = _line(three, other)
    aside = _add_line(columns, one, line, follow=False)
    _ask(columns, aside, good[rows, other])


def _detour(
    columns: TreeColumns,
    rng: np.random.Generator,
    root: int,
    numbers: Ints,
    reaches: Flags,
    *,
    deep: bool,
) -> None:
    """A legal first line, a losing one where there is one; `deep`: any legal line after it."""
    rows = np.arange(len(numbers))
    good = np.asarray(reaches.any(axis=(2, 3)))
    after = moves.expand(numbers)
    first = _pick(rng, ~good, after[:, :, 0] >= 0)
    line, three = _line(numbers, first)
    one = _add_line(columns, root, line, follow=False)
    _ask(columns, one, good[rows, first])
    if not deep:
        return
    second = _pick(rng, np.full((len(rows), 12), True), moves.expand(three)[:, :, 0] >= 0)
    line, _ = _line(three, second)
    below = _add_line(columns, one, line, follow=False)
    _ask(columns, below, np.asarray(reaches[rows, first, second].any(axis=1)))


def _pick(rng: np.random.Generator, wanted: Flags, legal: Flags) -> Ints:
    """A random legal column of each row, a wanted one if there is one."""
    weight = rng.random(wanted.shape) + wanted
    return np.where(legal, weight, -1.0).argmax(axis=1)


def _prompt(rng: np.random.Generator, numbers: Ints, target: Ints) -> Ints:
    """[trees, width] tokens of the prompt without its newline, the numbers shuffled."""
    n = len(numbers)
    shown = rng.permuted(numbers, axis=1)
    bos = np.where(rng.random((n, 1)) < NO_BOS_SHARE, PAD, BOS)
    head = np.full((n, 1), _IDS["puzzle"])
    arrow = np.full((n, 1), _IDS[" ->"])
    middle = _SPACED[shown].reshape(n, -1)
    return np.concatenate([bos, head, middle, arrow, _SPACED[target]], axis=1)


def _line(numbers: Ints, move: Ints) -> tuple[Ints, Ints]:
    """[trees, width] tokens of a line without newlines, and the state after it."""
    n = len(numbers)
    a, b, result, left = moves.apply_moves(numbers, move)
    assert (result >= 0).all(), "an illegal move was drawn"
    parts = [_PLAIN[a], _OP[move % 4][:, None], _SPACED[b], np.full((n, 1), _EQUALS)]
    parts += [_SPACED[result], np.full((n, 1), _LEFT), _SPACED[left].reshape(n, -1)]
    return np.concatenate(parts, axis=1), left


def _add_line(columns: TreeColumns, parent: int, line: Ints, *, follow: bool) -> int:
    """A line with the newline before it; a detour teaches its arithmetic, not its choice."""
    tokens = np.concatenate([_newline(line), line], axis=1)
    learn = np.full(tokens.shape, True)
    if not follow:
        learn[:, : 1 + 3 + 1 + 3] = False  # the newline, a, op and b
    return columns.add(tokens, parent=parent, learn=learn, tail=_NEWLINE, kind=PUZZLE)


def _ask(columns: TreeColumns, parent: int, label: Flags) -> None:
    """The judge's question as a branch that nothing else sees."""
    tokens = np.tile(np.array([_NEWLINE, _SUFFIX]), (len(label), 1))
    columns.add(tokens, parent=parent, tail=np.where(label, _YES, _NO), kind=JUDGE)


def _newline(line: Ints) -> Ints:
    """A column of newlines beside a line."""
    return np.full((len(line), 1), _NEWLINE)
