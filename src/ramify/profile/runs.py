"""How a pass is run: eagerly, as a CUDA graph, or compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ramify.profile.roofline import Attention

Run = Callable[[], Any]
"""One pass."""

RunMode = Literal["eager", "graphs", "compiled"]
RUN_MODES: tuple[RunMode, ...] = ("eager", "graphs", "compiled")


@contextmanager
def running(
    mode: RunMode, prepare: Callable[[], Run], modules: Mapping[str, torch.nn.Module]
) -> Iterator[Callable[[], Run]]:
    """What prepares a pass in a mode, as long as the block lasts.

    Args:
        prepare: makes what one pass needs.
        modules: the outermost ones that it calls; compiled in place, and put back after.
    """
    if mode == "eager":
        yield prepare
    elif mode == "compiled":
        with _compiled(modules):
            yield prepare
    else:
        graph, kept = _capture(prepare)
        yield lambda: graph.replay
        del graph, kept


@contextmanager
def attention_kernels(attention: Attention) -> Iterator[None]:
    """Scaled-dot-product attention as torch chooses it, or written out in the dtype of its input.

    Left alone, torch's math backend computes 16-bit attention in float32, which no user writes.
    """
    if attention == "flash":
        yield
        return
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


@contextmanager
def _compiled(modules: Mapping[str, torch.nn.Module]) -> Iterator[None]:
    """Compile modules, and their parts for methods other than forward (a VAE's decode)."""
    # on a CPU compiled kernels show in a trace only where they are asked to
    options = {"cpp.enable_kernel_profile": True}
    parts = [part for root in modules.values() for part in (root, *root.children())]
    before = [part._compiled_call_impl for part in parts]
    try:
        for part in parts:
            part.compile(options=options)
        yield
    finally:
        for part, call in zip(parts, before, strict=True):
            part._compiled_call_impl = call


def _capture(prepare: Callable[[], Run]) -> tuple[torch.cuda.CUDAGraph, Run]:
    """A pass as a graph, with the run whose inputs and caches it reads.

    Raises RuntimeError where the pass waits for the device, which no graph can hold.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        prepare()()  # libraries make their handles and workspaces
        run = prepare()
        with _no_waiting():
            run()
    torch.cuda.current_stream().wait_stream(side)
    run = prepare()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph, run


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Raise RuntimeError where the host waits for the device.

    Found out before a capture, as one that fails leaves the allocator and torch's random numbers
    in a state that later models would meet.
    """
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
