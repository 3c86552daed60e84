"""Checks on a forest given by a user: a failure names the field, what was expected, what came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ramify.core.errors import InputError, expected_got
from ramify.core.forest_order import has_cycle

if TYPE_CHECKING:
    from ramify.core.forest import Forest


def as_int_array(
    name: str, values: npt.ArrayLike, dtype: type[np.signedinteger]
) -> npt.NDArray[Any]:
    """A one-dimensional integer array, or InputError naming `name`."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # ragged nesting
        raise InputError(expected_got(name, "a flat sequence of integers", str(error))) from error
    if array.size == 0:
        array = array.astype(dtype)
    if array.ndim != 1:
        raise InputError(expected_got(name, "one dimension", f"shape {array.shape}"))
    if array.dtype.kind not in "iu":
        raise InputError(expected_got(name, "integers", f"dtype {array.dtype}"))
    limits = np.iinfo(dtype)
    if array.size and (int(array.max()) > limits.max or int(array.min()) < limits.min):
        raise InputError(expected_got(name, f"values that fit {limits.dtype}", int(array.max())))
    return array.astype(dtype)


def check_same_length(name: str, array: npt.NDArray[np.generic], expected: int) -> None:
    """InputError unless `array` has `expected` elements."""
    if len(array) != expected:
        raise InputError(expected_got(name, f"{expected} elements", len(array)))


def check_forest(forest: Forest) -> None:
    """Raise InputError on the first rule that `forest` breaks."""
    _check_parents(forest.parent)
    check_same_length("length", forest.length, forest.num_nodes)
    _check_at_least("length", forest.length, 0)
    _check_runs(forest)
    _check_slots(forest)
    _check_rows(forest)


def _check_parents(parent: npt.NDArray[np.int32]) -> None:
    num_nodes = len(parent)
    bad = np.flatnonzero((parent < -1) | (parent >= num_nodes))
    if bad.size:
        node = int(bad[0])
        wanted = f"-1 (a root) or a node below {num_nodes}"
        raise InputError(expected_got(f"parent[{node}] (an orphan)", wanted, int(parent[node])))
    if has_cycle(parent):
        node = _node_on_cycle(parent)
        raise InputError(
            expected_got(f"parent[{node}]", "a path that ends at a root", "a cycle of nodes")
        )


def _node_on_cycle(parent: npt.NDArray[np.int32]) -> int:
    """The smallest node from which parents lead back to it or to another cycle."""
    for start in range(len(parent)):
        node, steps = start, 0
        while node >= 0 and steps <= len(parent):
            node, steps = int(parent[node]), steps + 1
        if node >= 0:
            return start
    raise AssertionError("no cycle: called on a sound parent array")


def _check_at_least(name: str, array: npt.NDArray[np.int64], low: int) -> None:
    bad = np.flatnonzero(array < low)
    if bad.size:
        index = int(bad[0])
        raise InputError(expected_got(f"{name}[{index}]", f"at least {low}", int(array[index])))


def _check_runs(forest: Forest) -> None:
    indptr = forest.run_indptr
    check_same_length("run_indptr", indptr, forest.num_nodes + 1)
    check_same_length("run_len", forest.run_len, len(forest.run_begin))
    num_runs = len(forest.run_len)
    if indptr[0] != 0 or indptr[-1] != num_runs or (np.diff(indptr) < 0).any():
        wanted = f"a rising sequence from 0 to {num_runs}"
        raise InputError(expected_got("run_indptr", wanted, indptr.tolist()))
    _check_at_least("run_len", forest.run_len, 0)
    _check_at_least("run_begin", forest.run_begin, 0)
    total = np.diff(np.append(0, np.cumsum(forest.run_len))[indptr])
    bad = np.flatnonzero(total != forest.length)
    if bad.size:
        node = int(bad[0])
        wanted = f"{int(forest.length[node])} tokens (its length)"
        raise InputError(expected_got(f"runs of node {node}", wanted, int(total[node])))


def _check_slots(forest: Forest) -> None:
    """No slot may belong to two runs."""
    live = np.flatnonzero(forest.run_len > 0)
    order = live[np.argsort(forest.run_begin[live], kind="stable")]
    begin, end = forest.run_begin[order], forest.run_begin[order] + forest.run_len[order]
    bad = np.flatnonzero(begin[1:] < end[:-1])
    if bad.size:
        first, second = int(bad[0]), int(bad[0]) + 1
        node = np.searchsorted(forest.run_indptr, order[[first, second]], side="right") - 1
        wanted = f"slots of its own, from {int(end[first])} on"
        got = f"slot {int(begin[second])}, which node {int(node[0])} holds"
        raise InputError(expected_got(f"runs of node {int(node[1])}", wanted, got))


def _check_rows(forest: Forest) -> None:
    check_same_length("query_len", forest.query_len, forest.num_rows)
    bad = np.flatnonzero((forest.query_node < 0) | (forest.query_node >= forest.num_nodes))
    if bad.size:
        row = int(bad[0])
        wanted = f"a node in [0, {forest.num_nodes})"
        raise InputError(expected_got(f"query_node[{row}]", wanted, int(forest.query_node[row])))
    room = forest.length[forest.query_node]
    bad = np.flatnonzero((forest.query_len < 0) | (forest.query_len > room))
    if bad.size:
        row = int(bad[0])
        wanted = f"0 to {int(room[row])} (the length of its node)"
        raise InputError(expected_got(f"query_len[{row}]", wanted, int(forest.query_len[row])))
