"""Order and sums over a parent array, without a Python loop over nodes.

Both functions follow pointers in doubling steps, so a chain of a thousand nodes costs ten rounds
of array gathers. Nodes may come in any order: a child may precede its parent.

    preorder        Euler tour of the forest ranked as a linked list
    ancestor_sums   the sum of a value over all proper ancestors
Source: pointer jumping and Euler tours, Tarjan and Vishkin 1985.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def has_cycle(parent: npt.NDArray[np.int32]) -> bool:
    """Whether following parents from some node never reaches a root (parent -1)."""
    jump = _parents_with_hub(parent)
    for _ in range(len(jump).bit_length()):
        jump = jump[jump]
    return bool((jump != len(parent)).any())


def ancestor_sums(parent: npt.NDArray[np.int32], value: FloatArray) -> FloatArray:
    """Sum of `value` [N] over the proper ancestors of each node; a root gets 0."""
    jump = _parents_with_hub(parent)
    total = np.append(value, 0.0)[jump]
    hub = len(parent)
    while (jump != hub).any():
        total = total + total[jump]
        jump = jump[jump]
    return total[:-1]


def ancestor_counts(parent: npt.NDArray[np.int32], value: IntArray) -> IntArray:
    """`ancestor_sums` for exact int64 values, such as token counts."""
    jump = _parents_with_hub(parent)
    total = np.append(value, 0)[jump]
    hub = len(parent)
    while (jump != hub).any():
        total = total + total[jump]
        jump = jump[jump]
    return total[:-1]


def preorder(parent: npt.NDArray[np.int32]) -> tuple[IntArray, IntArray]:
    """Depth-first preorder: siblings, and roots, follow one another by node index.

    Returns:
        rank [N]: place of each node in preorder; end [N]: one past the last place of its subtree.
    """
    num_nodes = len(parent)
    after = _euler_successors(_parents_with_hub(parent))
    # entering a node counts one, leaving it counts nothing
    weight = np.zeros(2 * (num_nodes + 1), dtype=np.int64)
    weight[: num_nodes + 1] = 1
    last = 2 * num_nodes + 1
    while (after != last).any():
        weight = weight + np.where(after == last, 0, weight[after])
        after = after[after]
    # weight is now the number of nodes entered from here to the end, the hub comes first
    rank = num_nodes - weight[:num_nodes]
    end = num_nodes - weight[num_nodes + 1 : last]
    return rank, end


def _parents_with_hub(parent: npt.NDArray[np.int32]) -> IntArray:
    """Parents [N + 1] as int64, where an added node N is the parent of every root and of itself."""
    num_nodes = len(parent)
    hub = np.append(parent, num_nodes).astype(np.int64)
    hub[hub < 0] = num_nodes
    return hub


def _euler_successors(parent: IntArray) -> IntArray:
    """Next element of the tour; element v enters node v, element v + N + 1 leaves it."""
    count = len(parent)
    hub = count - 1
    by_parent = np.argsort(parent[:hub], kind="stable")
    same = np.zeros(hub, dtype=bool)
    if hub > 1:
        same[:-1] = parent[by_parent[1:]] == parent[by_parent[:-1]]
    is_first = np.ones(hub, dtype=bool)
    is_first[1:] = ~same[:-1]
    after = np.arange(2 * count, dtype=np.int64)
    after[:count] += count  # enter a leaf, then leave it
    after[parent[by_parent[is_first]]] = by_parent[is_first]
    after[count : 2 * count - 1] = parent[:hub] + count  # leave the last child, then its parent
    siblings = np.flatnonzero(same)
    after[by_parent[siblings] + count] = by_parent[siblings + 1]
    return after  # leaving the hub points at itself
