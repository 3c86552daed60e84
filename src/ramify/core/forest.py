"""One step's snapshot of every live tree: which rows ask, and which cache slots they may see.

Row r sits at node query_node[r]. It sees every token of that node's ancestors and the first
query_len[r] tokens of its own node. A plain request is a chain; a prefill chunk is one row per
token of its node, with growing query_len.

In depth-first preorder the rows at a node or below it are one interval [lo, hi), so two integers
replace a mask over rows. Inside the interval the node's own rows come first, by growing query_len;
own rows see a prefix of the node and every row below sees all of it. Hence for token t of node v

    rows that see it  =  ordered rows [first_row(v, t), row_hi[v])
    and a row of [row_lo[v], row_hi[v]) sees it  exactly when  node_start[v] + t <= row_position

Axis letters: N nodes, R runs, Q rows. Derived arrays are computed once, together, on first use.
Source: DeFT, Yao et al. 2025 (grouping by KV), with intervals in place of its bit masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ramify.core.errors import InputError, expected_got
from ramify.core.forest_check import as_int_array, check_forest, check_same_length
from ramify.core.forest_order import (
    ORDER,
    OWN_HI,
    OWN_SEEN,
    POSITION,
    ROW,
    ROW_HI,
    ROW_LO,
    SEEN,
    START,
    USER_POSITION,
    ForestOrder,
    first_rows,
    order_forest,
    row_shares,
)

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Runs = Sequence[Sequence[tuple[int, int]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Forest:
    """Nodes, their cache slots and the rows of one step. Arrays are never modified.

    The constructor itself checks nothing but shapes, by assert: it is the engine's fast way in.
    Users come through `from_nodes`, which validates; `validate()` does so for any forest.
    """

    parent: npt.NDArray[np.int32]  # [N], -1 at a root; nodes in any order
    length: IntArray  # [N] tokens of the node, 0 allowed
    run_indptr: IntArray  # [N + 1], CSR over the runs
    run_begin: IntArray  # [R] first slot of the run
    run_len: IntArray  # [R] slots; a node's runs, joined, hold its tokens in order
    query_node: IntArray  # [Q]
    query_len: IntArray  # [Q] tokens of its own node that the row sees

    def __post_init__(self) -> None:
        assert self.length.shape == self.parent.shape, "length and parent differ in shape"
        assert len(self.run_indptr) == len(self.parent) + 1, "run_indptr must have N + 1 elements"
        assert self.run_begin.shape == self.run_len.shape, "run_begin and run_len differ in shape"
        assert self.query_node.shape == self.query_len.shape, "query arrays differ in shape"

    @classmethod
    def from_nodes(
        cls,
        parent: npt.ArrayLike,
        length: npt.ArrayLike,
        kv_begin: npt.ArrayLike | None = None,
        query_node: npt.ArrayLike = (),
        query_len: npt.ArrayLike | None = None,
        *,
        runs: Runs | None = None,
    ) -> Forest:
        """Build and validate a forest.

        Args:
            parent: [N] parent node, -1 at a root. A child may precede its parent.
            length: [N] tokens per node.
            kv_begin: [N] first slot, for nodes whose tokens lie in one run. Excludes `runs`.
            query_node: [Q] node of each row.
            query_len: [Q] tokens of its own node that each row sees; default all of them.
            runs: per node a list of (first slot, number of slots), in token order.
        Raises:
            InputError: a cycle, an orphan, a negative length, runs that do not add up to the
                length, a slot used twice, a row out of range, or arrays of unequal length.
        """
        parents = as_int_array("parent", parent, np.int32)
        lengths = as_int_array("length", length, np.int64)
        check_same_length("length", lengths, len(parents))
        indptr, begin, run_len = _runs_of(lengths, kv_begin, runs)
        nodes = as_int_array("query_node", query_node, np.int64)
        if query_len is None:
            inside = (nodes >= 0) & (nodes < len(lengths))
            lens = np.zeros(len(nodes), dtype=np.int64)
            lens[inside] = lengths[nodes[inside]]
        else:
            lens = as_int_array("query_len", query_len, np.int64)
            check_same_length("query_len", lens, len(nodes))
        forest = cls(
            parent=parents,
            length=lengths,
            run_indptr=indptr,
            run_begin=begin,
            run_len=run_len,
            query_node=nodes,
            query_len=lens,
        )
        forest.validate()
        return forest

    def validate(self) -> None:
        """Raise InputError on the first broken rule; see `from_nodes`."""
        check_forest(self)

    def grown(self, num_tokens: int) -> Forest:
        """The forest after every row's node got `num_tokens` more, in the slots after its last.

        Each row must be the last token of a node of its own with nothing below, and stays that.
        """
        length, run_len = self.length.copy(), self.run_len.copy()
        length[self.query_node] += num_tokens
        run_len[self.run_indptr[self.query_node + 1] - 1] += num_tokens
        return replace(self, length=length, run_len=run_len, query_len=self.query_len + num_tokens)

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.parent)

    @property
    def num_rows(self) -> int:
        """Q."""
        return len(self.query_node)

    @cached_property
    def order(self) -> ForestOrder:
        """All that is derived together; the properties below name its parts."""
        return order_forest(self.parent, self.length, self.query_node, self.query_len)

    @cached_property
    def node_rank(self) -> IntArray:
        """[N] place of each node in depth-first preorder (siblings and roots by index)."""
        rank = np.empty(self.num_nodes, dtype=np.int64)
        rank[self.node_order] = np.arange(self.num_nodes)
        return rank

    @cached_property
    def node_order(self) -> IntArray:
        """[N] nodes in depth-first preorder."""
        return self._of_nodes(ORDER)

    @cached_property
    def node_start(self) -> IntArray:
        """[N] tokens before the node on its path: the position of its first token."""
        return self._of_nodes(START)

    @property
    def row_order(self) -> IntArray:
        """[Q] rows in preorder of their nodes, by query_len inside a node, stable."""
        return self.order.rows[ROW, :]

    @property
    def row_position(self) -> IntArray:
        """[Q] position of each row's own token on its path; -1 where the row sees nothing."""
        return self.order.rows[USER_POSITION, :]

    @property
    def ordered_position(self) -> IntArray:
        """[Q] the same in depth-first order of the rows."""
        return self.order.rows[POSITION, :]

    @cached_property
    def row_lo(self) -> IntArray:
        """[N] first ordered row at the node or below it."""
        return self._of_nodes(ROW_LO)

    @cached_property
    def row_hi(self) -> IntArray:
        """[N] one past the last ordered row at the node or below it."""
        return self._of_nodes(ROW_HI)

    @cached_property
    def own_hi(self) -> IntArray:
        """[N] one past the node's own rows, which are [row_lo, own_hi)."""
        return self._of_nodes(OWN_HI)

    def first_row(self, node: IntArray, offset: IntArray) -> IntArray:
        """First ordered row that sees token `offset` of `node`; row_hi[node] ends the interval."""
        return first_rows(self.order, node, offset)

    @cached_property
    def visible_len(self) -> IntArray:
        """[N] tokens of each node that some row sees (a prefix of the node)."""
        return self._of_nodes(SEEN)

    @cached_property
    def own_visible_len(self) -> IntArray:
        """[N] tokens of each node that its own rows see; 0 for a node without rows."""
        return self._of_nodes(OWN_SEEN)

    @cached_property
    def path_len(self) -> IntArray:
        """[Q] tokens each row sees."""
        return self.row_position + 1

    @property
    def path_tokens(self) -> int:
        """Tokens read when every row reads its own path."""
        return self.order.path_tokens

    @property
    def per_branch_tokens(self) -> int:
        """Tokens read when each node with rows reads its whole path once for them."""
        return self.order.per_branch_tokens

    @property
    def unique_tokens(self) -> int:
        """Tokens that at least one row sees."""
        return self.order.unique_tokens

    @cached_property
    def row_share(self) -> FloatArray:
        """[Q] sum over the tokens a row sees of 1 / (rows that see the token).

        The shares of all rows add up to unique_tokens: they attribute shared reads to requests.
        """
        return row_shares(self.order, self.parent, self.length)

    def _of_nodes(self, column: int) -> IntArray:
        return self.order.nodes[:, column].astype(np.int64)


def _runs_of(
    lengths: IntArray, kv_begin: npt.ArrayLike | None, runs: Runs | None
) -> tuple[IntArray, IntArray, IntArray]:
    """CSR of runs from one first slot per node, or from explicit lists."""
    if (kv_begin is None) == (runs is None):
        got = "neither" if runs is None else "both"
        raise InputError(expected_got("kv_begin, runs", "exactly one of the two", got))
    if runs is None:
        assert kv_begin is not None
        begin = as_int_array("kv_begin", kv_begin, np.int64)
        check_same_length("kv_begin", begin, len(lengths))
        return np.arange(len(lengths) + 1, dtype=np.int64), begin, lengths
    if len(runs) != len(lengths):
        raise InputError(expected_got("runs", f"{len(lengths)} lists", len(runs)))
    flat = [pair for node_runs in runs for pair in node_runs]
    if any(len(pair) != 2 for pair in flat):
        raise InputError(expected_got("runs", "pairs (first slot, slots)", flat))
    indptr = np.append(0, np.cumsum([len(node_runs) for node_runs in runs])).astype(np.int64)
    begin = as_int_array("runs first slot", [pair[0] for pair in flat], np.int64)
    return indptr, begin, as_int_array("runs slots", [pair[1] for pair in flat], np.int64)
