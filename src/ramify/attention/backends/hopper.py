"""hopper: one persistent launch per layer for the whole forest, merge included (sm_90).

Every plan, whatever its method, is lowered to units that fixed workers walk (plan/schedule.py,
kernels/hopper/). The grid never changes, so a captured CUDA graph serves every plan within the
capacity, and a step that only appends a token per branch adds one on the device.
"""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from ramify.attention.backends.base import Backend, LayerOptions
from ramify.attention.backends.device_arrays import DeviceArrays
from ramify.attention.kernels.hopper.source import KernelConstants, hopper_source
from ramify.attention.plan import AttentionPlan, HeadShape
from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.schedule import (
    array_sizes,
    make_schedule,
    windowed_read,
)
from ramify.core.errors import BackendUnavailable, InputError, expected_got
from ramify.core.forest import Forest
from ramify.core.nvrtc import CudaKernel, compile_cubin, require_compiler

ARCH = "sm_90a"
THREADS = 384
LOG2_E = math.log2(math.e)
HEAD_DIMS = (32, 64, 96, 128)

# tokens a branch may grow by before cuts are uneven: at most so many, and a part of its length
MOST_GROWN, GROWN_PART = 64, 8
LINE_INTS, MOST_LINES = 32, 4096  # of the plan, fetched ahead
MERGE_THREADS = 128
MERGES_PER_SM = 8  # CTAs at most: as many as find room at once

_kernels: dict[tuple[KernelConstants, int], tuple[CudaKernel, CudaKernel]] = {}


class _Params(ctypes.Structure):
    """As the struct of the same name in kernels/hopper/entry.cu."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in (
            "q", "k", "v", "out", "lse", "part_out", "part_lse", "counters",
            "header", "units", "pieces", "user_row", "row_position", "row_units",
            "expected", "merges", "merge_slots", "row_merge",
        )]
        + [(name, ctypes.c_int64) for name in (
            "q_row", "q_head", "k_head", "v_head",
        )]
        + [("k_slot_bytes", ctypes.c_uint32), ("v_slot_bytes", ctypes.c_uint32)]
        + [(name, ctypes.c_int) for name in ("num_kv_heads", "window", "plan_lines")]
        + [("scale", ctypes.c_float), ("softcap", ctypes.c_float)]
    )  # fmt: skip


class HopperBackend(Backend):
    """Executes plans on a Hopper GPU; see the module's docstring."""

    name = "hopper"
    auto_method = "fused"

    def __init__(self, heads: HeadShape, device: torch.device) -> None:
        _check(heads, device)
        super().__init__(heads, device)
        self._num_sms = torch.cuda.get_device_properties(device).multi_processor_count
        self.num_workers = max(1, self._num_sms // heads.num_kv_heads)
        self.tuning = Tuning(num_workers=self.num_workers)
        self._arrays = DeviceArrays(
            device, _room(rows=64, units=self.num_workers, pieces=256, slots=64)
        )
        self._counters = torch.zeros(0, dtype=torch.int32, device=device)
        self._parts = torch.empty(0, device=device)
        self._num_groups = self._num_slots = 0  # that these have room for
        self._held: list[tuple[Tensor, ...]] = []
        self._params = _Params()
        self._read_tokens: dict[int, int] = {}  # by window
        self._most_slots: int | None = None  # None: not reserved
        self._version = -1

    def reserve(
        self, *, rows: int, nodes: int, slots: int | None = None, pieces: int | None = None
    ) -> None:
        """Fix all addresses for captured graphs; a larger plan raises InputError.

        Args:
            rows, nodes: of the largest forest.
            slots: partial results of one row and all its heads; the default is ample for fused.
            pieces: runs over all units. A node's run may be listed by several row tiles and is cut
                by workers: the default is ample for fused; per_branch and lean list every path.
        """
        slots = slots or 4 * rows + 64 * self.num_workers
        pieces = pieces or 4 * nodes + rows + self.num_workers
        units = 3 * self.num_workers + rows  # a third for workers whose first unit is empty
        self._arrays.fix(_room(rows=rows, units=units, pieces=pieces, slots=slots))
        self._make_workspace(slots)
        self._most_slots = slots

    def prepare(self, forest: Forest, plan: AttentionPlan) -> None:
        """Lower the plan and send it to the device, without waiting."""
        costs = self.tuning.costs if self.tuning else None
        schedule = make_schedule(
            plan, self.heads.group, self.num_workers, costs, self._arrays.room_for
        )
        if self._most_slots is not None and schedule.num_slots > self._most_slots:
            wanted = f"at most {self._most_slots} partial results"
            raise InputError(expected_got("plan", wanted, schedule.num_slots))
        self._arrays.send()
        self._schedule = schedule
        self._make_workspace(schedule.num_slots)
        if self._version != self._arrays.version:
            self._take_addresses()
        self._grown = 0
        self._most_grown = most_growth(forest) if plan.can_grow else 0
        self._read_tokens.clear()

    def advance(self) -> bool:
        """One more token per branch: a counter on the device, no copy and no synchronisation."""
        if self._grown == self._most_grown:
            return False
        self._grown += 1
        self._counter.add_(1)
        self._read_tokens.clear()
        return True

    def run(self, q: Tensor, k: Tensor, v: Tensor, layer: LayerOptions) -> tuple[Tensor, Tensor]:
        """Attention of one layer: out [Q, Hq, D] like q, lse [Q, Hq] float32."""
        for name, tensor in (("k", k), ("v", v)):
            _check_alignment(name, tensor)
        if not _is_aligned(q):
            q = q.contiguous()
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
        if len(q) == 0:
            return out, lse
        self._hold_if_captured()
        self._set_params(q, k, v, out, lse, layer)
        attend, merge = _kernels_of(
            KernelConstants(
                head_dim=self.heads.head_dim,
                group=self.heads.group,
                is_bf16=q.dtype == torch.bfloat16,
                has_softcap=layer.softcap is not None,
                has_window=layer.window is not None,
            ),
            self.device,
        )
        stream = torch.cuda.current_stream(self.device).cuda_stream
        grid = self.num_workers * self.heads.num_kv_heads
        attend.launch(grid, THREADS, stream, self._params, early=True)
        if self._arrays.is_fixed or self._schedule.needs_merge:
            grid = self._num_sms * MERGES_PER_SM
            if not self._arrays.is_fixed:
                grid = min(grid, self.heads.num_q_heads * self._schedule.num_merges)
            merge.launch(grid, MERGE_THREADS, stream, self._params, early=True)
        self.kv_bytes_read += self._tokens_read(layer.window) * self.heads.token_bytes
        return out, lse

    def _tokens_read(self, window: int | None) -> int:
        """Tokens that a run loads; what a window hides is skipped."""
        if window is None:
            return self._schedule.read_tokens + self._grown * self._schedule.num_open
        if window not in self._read_tokens:
            self._read_tokens[window] = windowed_read(self._schedule, window, grown=self._grown)
        return self._read_tokens[window]

    def _set_params(
        self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, layer: LayerOptions
    ) -> None:
        p = self._params
        p.q, p.k, p.v = q.data_ptr(), k.data_ptr(), v.data_ptr()
        p.out, p.lse = out.data_ptr(), lse.data_ptr()
        p.q_row, p.q_head = q.stride()[:2]
        p.k_slot_bytes, p.k_head = k.stride(0) * k.element_size(), k.stride(1)
        p.v_slot_bytes, p.v_head = v.stride(0) * v.element_size(), v.stride(1)
        p.window = layer.window or 0
        p.scale, p.softcap = layer.scale * LOG2_E, 0.0
        if layer.softcap is not None:
            p.scale = layer.softcap * LOG2_E
            p.softcap = 2 * LOG2_E * layer.scale / layer.softcap
        size = len(self._parts) // (self.heads.head_dim + 1)
        p.part_out, p.part_lse = (
            self._parts.data_ptr(),
            self._parts[size * self.heads.head_dim :].data_ptr(),
        )
        p.counters = self._counters.data_ptr()

    def _take_addresses(self) -> None:
        """Whatever refers to the device's arrays, after they moved."""
        p, arrays = self._params, self._arrays
        for name in arrays.room:
            setattr(p, name, arrays[name].data_ptr())
        p.num_kv_heads = self.heads.num_kv_heads
        p.plan_lines = min(len(arrays.tensor) // LINE_INTS, MOST_LINES)
        self._counter = arrays["header"][1:2]
        self._version = arrays.version

    def _make_workspace(self, slots: int) -> None:
        """Partial results and merge counters, only ever grown."""
        if slots > self._num_slots:
            self._num_slots = 1 << (slots - 1).bit_length()
            size = self._num_slots * self.heads.num_q_heads * (self.heads.head_dim + 1)
            self._parts = torch.empty(size, device=self.device)
        groups = self._arrays.room["expected"]
        if groups > self._num_groups:
            self._num_groups = groups
            size = groups * self.heads.num_kv_heads
            self._counters = torch.zeros(size, dtype=torch.int32, device=self.device)

    def _hold_if_captured(self) -> None:
        """A graph holds addresses: what it reads must outlive a plan that outgrows the buffers."""
        if not torch.cuda.is_current_stream_capturing():
            return
        held = (self._arrays.tensor, self._parts, self._counters)
        if not self._held or any(a is not b for a, b in zip(self._held[-1], held, strict=True)):
            self._held.append(held)


def most_growth(forest: Forest) -> int:
    """Tokens by which the rows' own nodes may grow: short ones soon weigh several times as much."""
    if not forest.num_rows:
        return 0
    return min(MOST_GROWN, max(1, forest.order.own_tokens // forest.num_rows // GROWN_PART))


def _room(*, rows: int, units: int, pieces: int, slots: int) -> dict[str, int]:
    """Integers of each array; one merge and one counter a row are always enough."""
    return array_sizes(rows=rows, units=units, pieces=pieces, groups=rows, merges=rows, parts=slots)


def _kernels_of(constants: KernelConstants, device: torch.device) -> tuple[CudaKernel, CudaKernel]:
    """The compiled variant, kept for the life of the process: attention, and the merge."""
    key = (constants, device.index or 0)
    if key not in _kernels:
        cubin = compile_cubin(hopper_source(constants), ARCH)
        _kernels[key] = (
            CudaKernel(cubin, "forest_attention", constants.shared_bytes),
            CudaKernel(cubin, "merge_partials"),
        )
    return _kernels[key]


def _check(heads: HeadShape, device: torch.device) -> None:
    """Raise BackendUnavailable where the kernel cannot run."""
    if device.type != "cuda":
        raise BackendUnavailable("hopper", f"expected device cuda, got {device}")
    capability = torch.cuda.get_device_capability(device)
    if capability != (9, 0):
        raise BackendUnavailable("hopper", f"expected compute capability 9.0, got {capability}")
    if heads.itemsize != 2:
        raise BackendUnavailable("hopper", f"expected 16 bit elements, got {8 * heads.itemsize}")
    if heads.head_dim not in HEAD_DIMS or heads.group > 64:
        got = f"{heads.head_dim} and {heads.group}"
        wanted = f"head_dim of {HEAD_DIMS} and at most 64 query heads a KV head"
        raise BackendUnavailable("hopper", f"expected {wanted}, got {got}")
    require_compiler()


def _is_aligned(tensor: Tensor) -> bool:
    strides = tensor.stride()
    return (
        strides[-1] == 1
        and tensor.data_ptr() % 16 == 0
        and all(s * tensor.element_size() % 16 == 0 for s in strides[:-1])
    )


def _check_alignment(name: str, tensor: Tensor) -> None:
    if not _is_aligned(tensor):
        got = f"strides {tensor.stride()} at address {tensor.data_ptr():#x}"
        wanted = "a contiguous last axis, other strides and the address multiples of 16 bytes"
        raise InputError(expected_got(name, wanted, got))
