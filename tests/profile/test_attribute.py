"""Traces by hand: a CPU's intervals, a GPU's kernels that run long after their launch, graphs."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from ramify.profile.attribute import replayed, works
from ramify.profile.events import Event, split
from ramify.profile.operators import kinds
from ramify.profile.operators.recorder import ATTENTION_MARK, MODULE_MARK

Q, K = [2, 8, 64, 40], [2, 8, 77, 40]


def event(name, begin, duration, category="cpu_op", **args):
    return Event(name, begin, duration, category, args=Raw(msgspec.json.encode(args)))


def mark(name, begin, duration):
    return event(name, begin, duration, "user_annotation")


def host():
    return [
        mark(MODULE_MARK + "unet", 0, 500),
        mark(MODULE_MARK + "unet.mid", 190, 120),
        event("aten::linear", 0, 100),
        event("aten::addmm", 10, 60, **{"Input Dims": [[24], [20, 8], [8, 24], [], []]}),
        event("aten::copy_", 20, 10),  # inside a product: part of it
        mark(f"{ATTENTION_MARK}{kinds.CROSS} of {[Q, K, K]}", 200, 100),
        event("aten::bmm", 210, 40),  # inside attention: part of it
        event("aten::cat", 400, 30, **{"Input Dims": [[[3, 4], [3, 5]], []]}),
        event("aten::view", 440, 5),
        event("aten::mm", 2000, 50),  # outside the window
    ]


def inside(events, begin, end):
    (found,) = split(events, [(begin, end)])
    return found


def told(found):
    return [(work.label.kind, work.label.module, work.span.duration_us) for work in found]


def test_the_outermost_known_interval_counts_on_a_cpu():
    found = works(inside(host(), 0, 1000), on_gpu=False)
    assert told(found) == [
        (kinds.LINEAR, "unet", 60),
        (kinds.CROSS, "unet.mid", 100),
        (kinds.ELEMENTWISE, "unet", 30),
    ]
    shapes = [work.label.shapes for work in found]
    assert shapes == [
        ((24,), (20, 8), (8, 24)),
        (tuple(Q), tuple(K), tuple(K)),
        ((3, 4), (3, 5)),
    ]
    assert [work.label.op for work in found][::2] == ["aten.addmm", "aten.cat"]


def gpu_trace():
    launched = {1: 30, 2: 220, 3: 230, 4: 405, 5: 990, 6: 2010}
    calls = [event("launch", at, 2, "cuda_runtime", correlation=n) for n, at in launched.items()]
    ran = {1: (500, 100), 2: (600, 50), 3: (620, 80), 4: (700, 10), 5: (1200, 7), 6: (2100, 9)}
    kernels = [
        event("k", at, us, "kernel", correlation=n, grid=[n, 1, 1], block=[128, 1, 1])
        for n, (at, us) in ran.items()
    ]
    return [*host(), *calls, *kernels]


def test_kernels_belong_to_their_launch():
    found = works(inside(gpu_trace(), 0, 1000), on_gpu=True)
    expected = [kinds.LINEAR, kinds.CROSS, kinds.CROSS, kinds.ELEMENTWISE, kinds.ELEMENTWISE]
    assert [work.label.kind for work in found] == expected
    assert [work.call for work in found] == [0, 1, 1, 2, -5]  # two of one attention, one of nobody
    assert [work.launched_us for work in found] == [32, 222, 232, 407, 992]
    assert found[0].grid == (1, 1, 1) and found[0].block == (128, 1, 1)
    assert [work.label.module for work in found] == ["unet", "unet.mid", "unet.mid", "unet", ""]


def graph_trace(names):
    launch = event("cudaGraphLaunch", 1, 9, "cuda_runtime", correlation=3)
    ran = [event(name, 100 + i, 1, "kernel", correlation=3) for i, name in enumerate(names)]
    return works([launch, *ran], on_gpu=True)


def test_kernels_of_a_graph_are_those_of_the_pass_it_captured():
    pattern = works(inside(gpu_trace(), 0, 1000), on_gpu=True)
    kinds_of = [work.label.kind for work in pattern]
    same = replayed(graph_trace(["k", "k", "another algorithm", "k", "k"]), pattern)
    assert [work.label.kind for work in same] == kinds_of
    assert [work.call for work in same] == [work.call for work in pattern]
    # one that the pass had not and one too many: names and their order tell
    longer = replayed(graph_trace(["nvjet_tst", *"kkkkkk"]), pattern)
    expected = [kinds.LINEAR, *kinds_of, kinds.ELEMENTWISE]
    assert [work.label.kind for work in longer] == expected


def test_attention_without_a_range_is_known_by_its_shapes():
    dims = {"Input Dims": [Q, K, K, [], []]}
    trace = [event("aten::_scaled_dot_product_flash_attention", 0, 9, **dims)]
    known = {(tuple(Q), tuple(K)): kinds.CROSS}
    (found,) = works(trace, on_gpu=False, attention_kinds=known)
    assert found.label.kind == kinds.CROSS
    (found,) = works(trace, on_gpu=False)
    assert found.label.kind == kinds.SPATIAL
