"""Steps on a Hopper GPU: growth without plans, one graph for every forest, and the host's time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from ramify.attention import METHODS, TreeAttention
from ramify.attention.backends import hopper as backend
from ramify.attention.backends.hopper import MOST_GROWN
from ramify.attention.reference import tree_attention_ref
from ramify.bench.attention.growing_tree import GrowingTree
from ramify.core.errors import InputError
from ramify.core.forest import Forest
from ramify.testing.compare import assert_within_budget
from ramify.testing.trees import few_shot

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
]
DEVICE, BACKEND = "cuda", "hopper"

Q_HEADS, KV_HEADS, HEAD_DIM = 8, 2, 128
BF16 = torch.bfloat16
WINDOW = 64


@pytest.fixture(autouse=True, scope="module")
def hopper() -> None:
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")


def open_op(method: str = "fused", **options: int) -> TreeAttention:
    heads = (Q_HEADS, KV_HEADS, HEAD_DIM)
    return TreeAttention(
        *heads, dtype=BF16, device=DEVICE, method=method, backend=BACKEND, **options
    )


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=DEVICE, dtype=BF16)


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Whatever waits for the GPU in here raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Pool:
    """K and V that are written token by token: NaN until then."""

    def __init__(self, num_slots: int) -> None:
        self._source = [draw(num_slots, KV_HEADS, HEAD_DIM, seed=seed) for seed in (1, 2)]
        self.k, self.v = (torch.full_like(one, torch.nan) for one in self._source)

    def write(self, slots: np.ndarray) -> None:
        index = torch.from_numpy(slots).to(DEVICE)
        for pool, source in zip((self.k, self.v), self._source, strict=True):
            pool[index] = source[index]


class Writer:
    """A growing tree whose tokens are in the pool as soon as they are in the tree."""

    def __init__(self, branches: int, prompt: int, *, room: int, nodes: int, seed: int = 0) -> None:
        self.tree = GrowingTree(branches, prompt, room=room, seed=seed)
        self.pool = Pool(prompt + room * nodes)
        self._first = lambda node: prompt + (node - 1) * room
        self.pool.write(np.arange(prompt))
        self._write(self.tree.tips)

    def step(self, *, forks: bool = False, prunes: bool = False) -> None:
        self.tree.append()
        grown = list(self.tree.tips)
        if prunes:
            self.tree.prune()
        if forks:
            self.tree.fork()
        self._write({*grown, *self.tree.tips})

    def _write(self, nodes: set[int] | list[int]) -> None:
        last = [self._first(node) + self.tree.length[node] - 1 for node in nodes]
        self.pool.write(np.array(last, dtype=np.int64))


def check(
    results: tuple[Tensor, Tensor], q: Tensor, pool: Pool, forest: Forest, window: int | None = None
) -> None:
    (exact, exact_lse), (naive, _) = (
        tree_attention_ref(q.to(dtype), pool.k.to(dtype), pool.v.to(dtype), forest, window=window)
        for dtype in (torch.float64, BF16)
    )
    assert_within_budget(results[0], exact, naive, name="out")
    options = {"factor": 4.0, "terms": HEAD_DIM + int(forest.path_len.max()), "magnitude": 1.0}
    assert_within_budget(results[1], exact_lse, exact_lse.float(), name="lse", **options)


# ---- mended plans ----------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [70, 1000, 9000])
def test_a_mended_plan_reads_the_forest_that_grew(prompt: int) -> None:
    """A draft tree of the same shape below a longer tip, its tokens in other slots."""
    parent = [-1, *((place - 1) // 2 for place in range(1, 64))]
    op, q = open_op(), draw(64, Q_HEADS, HEAD_DIM)
    forests = []
    for grown in (0, 5):
        slots = np.random.default_rng(grown).permutation(np.arange(prompt + 20, prompt + 200))
        length = [prompt + grown, *[1] * 63]
        forests.append(Forest.from_nodes(parent, length, [0, *slots[:63]], range(64)))
    op.plan(forests[0])
    op.plan(forests[1], may_mend=True)
    assert op._unplanned is forests[1], "the plan is a mended one"
    pool = Pool(prompt + 200)
    pool.write(np.arange(prompt + 5))
    pool.write(forests[1].run_begin[1:])
    check(op.run(q, pool.k, pool.v), q, pool, forests[1])
    op.renew()
    check(op.run(q, pool.k, pool.v), q, pool, forests[1])


# ---- growth ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_advanced_plans_are_right_until_too_much_has_grown(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "most_growth", lambda forest: MOST_GROWN)
    writer = Writer(branches=37, prompt=800, room=200, nodes=40)
    op, q = open_op(method), draw(37, Q_HEADS, HEAD_DIM)
    for _ in range(5):
        writer.step()
    op.plan(writer.tree.forest())
    for grown in range(1, MOST_GROWN + 1):
        writer.step()
        assert op.advance()
        if grown in (1, 2, 27, MOST_GROWN):
            forest, k, v = writer.tree.forest(), writer.pool.k, writer.pool.v
            check(op.run(q, k, v), q, writer.pool, forest)
            check(op.run(q, k, v, window=WINDOW), q, writer.pool, forest, WINDOW)
            assert op._backend._counter.item() == grown
    op.reset_counters()
    op.run(q, k, v)
    schedule = op._backend._schedule
    grown_tokens = schedule.read_tokens + 37 * MOST_GROWN
    assert op.kv_bytes_read == grown_tokens * op.heads.token_bytes
    assert not op.advance(), "cuts are no longer even"
    # nothing has changed by asking
    check(op.run(q, k, v), q, writer.pool, forest)
    op.plan(forest)
    assert op.advance()


def test_plans_that_do_not_allow_growth_refuse_it() -> None:
    op = open_op()
    leaves = ([-1, 0, 0], [9, 2, 3], [0, 10, 20])
    for rows, seen in (([1, 1], [2, 2]), ([0, 1], [9, 2]), ([1, 2], [1, 3])):
        op.plan(Forest.from_nodes(*leaves, rows, seen))
        assert not op.advance()
    op.plan(Forest.from_nodes(*leaves, [1, 2]))
    assert op.advance()
    q, k = draw(2, Q_HEADS, HEAD_DIM), draw(23, KV_HEADS, HEAD_DIM)
    with pytest.raises(InputError, match="k: expected 24 slots or more, got 23"):
        op.run(q, k, k)


# ---- graphs ----------------------------------------------------------------------------------

MOST_ROWS, MOST_NODES = 80, 160


def graph_of(op: TreeAttention, q: Tensor, pool: Pool) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    """Two layers, one with a window, captured under the largest plan that there may be."""

    def layers() -> list[Tensor]:
        plain, windowed = (op.run(q, pool.k, pool.v, window=window) for window in (None, WINDOW))
        return [*plain, *windowed]

    op.reserve(rows=MOST_ROWS, nodes=MOST_NODES)
    op.plan(Forest.from_nodes([-1] * len(q), [1] * len(q), range(len(q)), range(len(q))))
    layers()  # modules are loaded before the capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = layers()
    return graph, results


def test_one_graph_serves_a_thousand_steps_of_a_growing_tree() -> None:
    writer = Writer(branches=24, prompt=700, room=1020, nodes=140)
    tree, pool = writer.tree, writer.pool
    op, q, source = open_op(), draw(MOST_ROWS, Q_HEADS, HEAD_DIM), draw(MOST_ROWS, 8, 128, seed=3)
    graph, results = graph_of(op, q, pool)
    address = op._backend._arrays.tensor.data_ptr()
    advanced = allowed = 0
    for step in range(1000):
        forks, prunes = step % 20 == 19, step % 50 == 49
        writer.step(forks=forks, prunes=prunes)
        forest, rows = tree.forest(), len(tree.tips)
        q.fill_(torch.nan)
        q[:rows] = source[torch.arange(step, step + rows, device=DEVICE) % MOST_ROWS]
        for result in results:
            result.fill_(torch.nan)
        with no_synchronisation():
            if step and not forks and not prunes and op.advance():
                advanced, allowed = advanced + 1, allowed - 1
            else:
                assert forks or prunes or not allowed, "a plan may be advanced that often"
                op.plan(forest)
                allowed = backend.most_growth(forest)
            graph.replay()
        if step % 25 in (0, 24):
            assert all(result[rows:].isnan().all() for result in results)
            out, lse, windowed, windowed_lse = (result[:rows] for result in results)
            check((out, lse), q[:rows], pool, forest)
            check((windowed, windowed_lse), q[:rows], pool, forest, WINDOW)
    # 50 forks and 20 cuts, 10 of them in one step
    assert advanced > 500 and len(tree.tips) == 24 + 50 - 20
    assert op._backend._arrays.tensor.data_ptr() == address


def test_a_plan_beyond_the_reserved_room_changes_nothing() -> None:
    pool, q = Pool(3000), draw(MOST_ROWS, Q_HEADS, HEAD_DIM)
    pool.write(np.arange(3000))
    op = open_op()
    graph, results = graph_of(op, q, pool)
    case = few_shot(branches=60, prompt=900, generated=20)
    op.plan(case.forest)
    graph.replay()
    before = [result[:60].clone() for result in results]
    check((before[0], before[1]), q[:60], pool, case.forest)
    for large in (few_shot(MOST_ROWS + 1, 900, 20), few_shot(500, 100, 5)):
        with pytest.raises(InputError, match="plan: expected at most"):
            op.plan(large.forest)
        graph.replay()
        for result, expected in zip(results, before, strict=True):
            assert torch.equal(result[:60], expected)


def test_a_graph_outlives_a_plan_that_outgrows_the_buffers() -> None:
    """Without reserved room the graph keeps what it was captured with."""
    pool, small, large = Pool(9000), few_shot(5, 300, 9).forest, few_shot(200, 600, 30).forest
    pool.write(np.arange(9000))
    op, q = open_op(), draw(5, Q_HEADS, HEAD_DIM)
    op.plan(small)
    expected = op.run(q, pool.k, pool.v)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        results = op.run(q, pool.k, pool.v)
    op.plan(large)
    op.run(draw(200, Q_HEADS, HEAD_DIM), pool.k, pool.v)
    for result in results:
        result.fill_(torch.nan)
    graph.replay()
    assert all(map(torch.equal, results, expected))


# ---- compiled --------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")  # those of inductor are not ours
def test_inductor_sees_one_call_whatever_the_plan() -> None:
    torch._dynamo.reset()
    op = open_op()
    counter = CompileCounterWithBackend("inductor")
    pool = Pool(4000)
    pool.write(np.arange(4000))

    def layers(q: Tensor) -> tuple[Tensor, Tensor]:
        out, _ = op.run(q * 0.5, pool.k, pool.v)
        return op.run(q + out, pool.k, pool.v, window=WINDOW)

    compiled = torch.compile(layers, fullgraph=True, backend=counter, dynamic=False)
    q = draw(40, Q_HEADS, HEAD_DIM)
    for prompt, generated in ((1500, 30), (20, 5), (2000, 49)):
        forest = few_shot(branches=40, prompt=prompt, generated=generated).forest
        op.plan(forest)
        check(op.run(q * 0.5, pool.k, pool.v), q * 0.5, pool, forest)
        for got, expected in zip(compiled(q), layers(q), strict=True):
            torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2)
    assert counter.frame_count == 1
    torch._dynamo.reset()


# ---- host ------------------------------------------------------------------------------------


def median_us(samples: list[float]) -> float:
    return float(np.median(samples)) * 1e6


def test_advancing_and_planning_cost_the_host_little_and_never_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1024 branches, 1500 nodes; the GPU is kept busy, so that waiting for it would show."""
    monkeypatch.setattr(backend, "most_growth", lambda forest: MOST_GROWN)
    op = open_op()
    tree = GrowingTree.of_size(branches=1024, nodes=1500, prompt=1000, room=8)
    forests = [tree.forest() for _ in range(23)]
    for forest in forests[:3]:
        op.plan(forest)  # buffers have grown, loops are compiled
    busy = torch.randn(4096, 4096, device=DEVICE, dtype=BF16)
    planned, advanced = [], []
    torch.cuda.synchronize()
    for forest in forests[3:]:
        busy @ busy
        with no_synchronisation():
            begin = perf_counter()
            op.plan(forest)
            planned.append(perf_counter() - begin)
            for _ in range(5):
                begin = perf_counter()
                assert op.advance()
                advanced.append(perf_counter() - begin)
    assert len(advanced) == 100 and median_us(advanced) <= 20
    assert median_us(planned) <= 2000
