"""triton: launches the partial kernel over the work list of a plan, then the merge kernel.

One launch for each tile size that the plan uses, overlapping one another, and one merge where rows
have several partials; none waits for the host. Grids are the plan's, or after `reserve` the
capacity's, so that a captured CUDA graph serves every plan within it. Runs on NVIDIA GPUs, and on a
CPU under Triton's interpreter (TRITON_INTERPRET=1) for tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from torch import Tensor

from ramify.attention.backends.base import Backend, LayerOptions
from ramify.attention.backends.plan_buffer import Capacity, PlanBuffer, unit_name
from ramify.attention.kernels.merge import merge_kernel
from ramify.attention.kernels.partial import partial_kernel
from ramify.attention.plan import AttentionPlan, HeadShape
from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.windowed import windowed_tokens
from ramify.attention.plan.work import SPAN_TOKENS, TILES, make_work
from ramify.core.errors import BackendUnavailable, InputError, expected_got
from ramify.core.forest import Forest

LOG2_E = math.log2(math.e)
UNITS_PER_SM = 4
FEW_ROW_HEADS = 2048  # rows x heads below which a merge program takes one head, many partials


@dataclass(frozen=True, kw_only=True)
class TileConfig:
    """Compile-time choices for one tile size; defaults measured on an H200, bf16, head dim 128."""

    num_warps: int = 4
    max_registers: int | None = None
    tile_bytes: int = 16384  # of K in one pipeline stage
    stages: int = 2
    gather_stages: int = 3  # an index is loaded before its token, so each gets half of them


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """How units are cut and launched."""

    tiles: dict[int, TileConfig] = field(
        default_factory=lambda: {
            16: TileConfig(max_registers=128),
            32: TileConfig(max_registers=128),
            64: TileConfig(),
            128: TileConfig(num_warps=8),
        }
    )
    wide_rows: int = 512
    narrowest: int = 16
    pdl: bool = True  # launches overlap


class TritonBackend(Backend):
    """Executes plans on a GPU; see the module's docstring."""

    name = "triton"
    auto_method = "fused"

    def __init__(
        self, heads: HeadShape, device: torch.device, config: LaunchConfig | None = None
    ) -> None:
        self.is_interpreted = bool(triton.knobs.runtime.interpret)
        _check(heads, device, self.is_interpreted)
        super().__init__(heads, device)
        self.config = config or LaunchConfig()
        num_sms = 16
        self.reads_fp8 = True
        if device.type == "cuda":
            # older GPUs have no instruction that widens e4m3
            self.reads_fp8 = torch.cuda.get_device_capability(device) >= (8, 9)
            num_sms = torch.cuda.get_device_properties(device).multi_processor_count
        # several CTAs share an SM and take units as they come
        self.num_workers = max(1, num_sms * UNITS_PER_SM // heads.num_kv_heads)
        self.tuning = Tuning(num_workers=self.num_workers, packed_rows=64)
        self._buffer = PlanBuffer(device)
        self._part_lse = torch.empty(0, device=device)
        self._captured: list[tuple[Tensor, ...]] = []

    def reserve(self, *, rows: int, nodes: int, capacity: Capacity | None = None) -> None:
        """Fix all addresses and grids, for graphs; a plan beyond that raises InputError.

        Args:
            rows, nodes: of the largest forest.
            capacity: instead of what is ample for fused and these.
        """
        if capacity is None:
            pieces = 4 * nodes + rows + self.num_workers
            capacity = Capacity(
                rows=rows,
                units=2 * self.num_workers + rows,
                pieces=pieces,
                tokens=SPAN_TOKENS * pieces,
                slots=4 * rows + 64 * self.num_workers,
            )
        self._buffer.reserve(capacity)
        self._make_partials(capacity.slots)

    def prepare(self, forest: Forest, plan: AttentionPlan) -> None:
        """Lower the plan and send it to the device, without waiting."""
        work = make_work(
            plan,
            forest,
            self.heads.group,
            wide_rows=self.config.wide_rows,
            narrowest=self.config.narrowest,
        )
        self._buffer.upload(work)
        self._work = work
        self._reads: dict[int | None, int] = {None: work.read_tokens}
        if len(self._part_lse) < self._buffer.capacity.slots * self.heads.num_q_heads:
            self._make_partials(self._buffer.capacity.slots)

    def run(self, q: Tensor, k: Tensor, v: Tensor, layer: LayerOptions) -> tuple[Tensor, Tensor]:
        """Attention of one layer: out [Q, Hq, D] like q, lse [Q, Hq] float32."""
        for name, tensor in (("k", k), ("v", v)):
            if tensor.stride(-1) != 1:
                raise InputError(expected_got(name, "a contiguous last axis", tensor.stride()))
        q = q if q.stride(-1) == 1 else q.contiguous()
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
        if len(q) == 0:
            return out, lse
        self._keep_if_captured()
        fixed, capacity = self._buffer.is_fixed, self._buffer.capacity
        is_first = True
        # the widest tiles take longest; smaller ones fill the gaps they leave
        for tile in reversed(TILES):
            units = capacity.units if fixed else len(self._work.units[tile])
            if units:
                self._launch_units(tile, units, (q, k, v, out, lse), is_first, layer)
                is_first = False
        if fixed or (self._work.rows[2] != 1).any():
            self._launch_merge(capacity.rows if fixed else len(q), out, lse)
        self.kv_bytes_read += self._read_tokens(layer.window) * self.heads.token_bytes
        return out, lse

    def _read_tokens(self, window: int | None) -> int:
        if window not in self._reads:
            assert window is not None, "prepare counted the plan without a window"
            self._reads[window] = windowed_tokens(self._work, window)
        return self._reads[window]

    def _keep_if_captured(self) -> None:
        """A graph holds addresses: what it reads must outlive a plan that outgrows the buffers."""
        if self.device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
            return
        held = (self._buffer.device_ints, self._part_out, self._part_lse)
        if not self._captured or self._captured[-1][0] is not held[0]:
            self._captured.append(held)

    def _make_partials(self, slots: int) -> None:
        """Workspace for partial results: outputs and lse of every slot and head."""
        heads = self.heads
        size = slots * heads.num_q_heads
        self._part_out = torch.empty(size * heads.head_dim, device=self.device)
        self._part_lse = torch.empty(size, device=self.device)

    def _launch_units(
        self,
        tile: int,
        units: int,
        tensors: tuple[Tensor, ...],
        is_first: bool,
        layer: LayerOptions,
    ) -> None:
        q, k, v, out, lse = tensors
        heads, on_device, softcap = self.heads, self._buffer.on_device, layer.softcap
        config = self.config.tiles[tile]
        block_d = max(16, triton.next_power_of_2(heads.head_dim))
        block_n = config.tile_bytes // (block_d * q.itemsize)
        options: dict[str, Any] = {"num_warps": config.num_warps}
        if not self.is_interpreted:
            options |= {"maxnreg": config.max_registers, "launch_pdl": self._pdl and not is_first}
        partial_kernel[(units * heads.num_kv_heads,)](
            q, k, v, out, lse, self._part_out, self._part_lse,
            on_device[unit_name(tile)], on_device["pieces"],
            on_device["tokens"], on_device["tokens"].stride(0),
            on_device["rows"], on_device["rows"].stride(0),
            layer.k_scale, layer.v_scale,
            *q.stride()[:2], *k.stride()[:2], *v.stride()[:2],
            heads.num_kv_heads, layer.scale * LOG2_E,
            0.0 if softcap is None else softcap * LOG2_E, layer.window or 0,
            GROUP=heads.group, TILE=tile, BLOCK_N=min(128, max(16, block_n)),
            HEAD_DIM=heads.head_dim, BLOCK_D=block_d,
            SOFTCAP=softcap is not None, WINDOW=layer.window is not None,
            FP8=layer.k_scale is not None,
            PRECISION="ieee" if q.dtype == torch.float32 else "tf32", FAST=not self.is_interpreted,
            STAGES=config.stages, GATHER_STAGES=config.gather_stages,
            PDL=self._pdl, CHAINED=self._pdl and not is_first, **options,
        )  # fmt: skip

    def _launch_merge(self, rows: int, out: Tensor, lse: Tensor) -> None:
        heads, on_device = self.heads, self._buffer.on_device
        block_d = max(16, triton.next_power_of_2(heads.head_dim))
        few = rows * heads.num_q_heads <= FEW_ROW_HEADS
        per_program = 1 if few else min(4, triton.next_power_of_2(heads.num_q_heads))
        options: dict[str, Any] = {"launch_pdl": True} if self._pdl else {}
        merge_kernel[(rows, triton.cdiv(heads.num_q_heads, per_program))](
            out, lse, self._part_out, self._part_lse,
            on_device["rows"], on_device["rows"].stride(0),
            on_device["merge_indptr"], on_device["merge_slots"], on_device["header"],
            heads.num_q_heads,
            HEADS=per_program, FAN_IN=16 if few else 4, HEAD_DIM=heads.head_dim,
            BLOCK_D=block_d, PDL=self._pdl, num_warps=1 if few else 4, **options,
        )  # fmt: skip

    @property
    def _pdl(self) -> bool:
        return self.config.pdl and not self.is_interpreted


def _check(heads: HeadShape, device: torch.device, is_interpreted: bool) -> None:
    """Raise BackendUnavailable where the kernels cannot run."""
    if device.type != "cuda" and not (is_interpreted and device.type == "cpu"):
        raise BackendUnavailable(
            "triton", f"expected device cuda (or cpu with TRITON_INTERPRET=1), got {device}"
        )
    if heads.itemsize > 4:
        raise BackendUnavailable("triton", "expected 16 or 32 bit elements, got float64")
    if heads.group > 128 or heads.head_dim > 256:
        got = f"{heads.group} and {heads.head_dim}"
        raise BackendUnavailable(
            "triton", f"expected at most 128 query heads a KV head and head_dim 256, got {got}"
        )
