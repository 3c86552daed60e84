"""TreeAttention: validate, choose, call. Plan once per step, run once per layer."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import torch
from torch import Tensor

from ramify.attention.backends import LayerOptions, open_backend
from ramify.attention.checks import (
    FP8,
    check_dtypes,
    check_heads,
    check_scale,
    check_shapes,
    check_tensor,
    check_window,
)
from ramify.attention.ops import register, tree_attention
from ramify.attention.plan import AttentionPlan, HeadShape, PlanReport, build_plan, explain
from ramify.attention.plan.build import check_method
from ramify.attention.plan.cost import Tuning
from ramify.attention.plan.mend import mend_plan
from ramify.core.errors import InputError, expected_got
from ramify.core.forest import Forest

MIN_FIXED_CUTS = 64


class TreeAttention:
    """Attention of many rows over a forest of shared KV, for one shape of heads.

    Args:
        num_q_heads, num_kv_heads, head_dim: Hq a multiple of Hkv; D even.
        dtype: of q and out: bfloat16, float16, float32 or float64.
        device: where q, k and v live.
        method: auto, per_branch, lean, node, node_chunk, flatten or fused.
        backend: auto, hopper, triton, cpu or reference.
        scale: multiplies q . k; above 0, default 1 / sqrt(D).
        softcap: if given, logits become softcap * tanh(logits / softcap).
        kv_dtype: of k and v: None for `dtype`, or float8_e4m3fn with scales per KV head.
        fixed_cuts: None cuts work evenly over the device, so the last bits of a tree's results
            may depend on what else is planned. A number cuts at multiples of so many tokens of
            each row tile and lets no tile span trees: on backend hopper a tree's results are then
            the same to the bit whatever its neighbours (not for flatten, whose blocks span trees).
    Raises:
        InputError: an argument out of range.
        BackendUnavailable: the backend cannot run here.
    Attributes:
        plan_s: seconds that `plan` has taken the host so far.
    """

    def __init__(
        self,
        num_q_heads: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        method: str = "auto",
        backend: str = "auto",
        scale: float | None = None,
        softcap: float | None = None,
        kv_dtype: torch.dtype | None = None,
        fixed_cuts: int | None = None,
    ) -> None:
        check_heads(num_q_heads, num_kv_heads, head_dim)
        check_dtypes(dtype, kv_dtype)
        check_method(method)
        if softcap is not None and not softcap > 0:
            raise InputError(expected_got("softcap", "None or above 0", softcap))
        if scale is not None and not 0 < scale < math.inf:
            raise InputError(expected_got("scale", "a finite number above 0", scale))
        if fixed_cuts is not None and fixed_cuts < MIN_FIXED_CUTS:
            wanted = f"None or at least {MIN_FIXED_CUTS} tokens"
            raise InputError(expected_got("fixed_cuts", wanted, fixed_cuts))
        self.heads = HeadShape(
            num_q_heads=num_q_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            itemsize=(kv_dtype or dtype).itemsize,
        )
        self.dtype = dtype
        self.kv_dtype = kv_dtype or dtype
        self.device = torch.device(device)
        self.method = method
        self.scale = head_dim**-0.5 if scale is None else scale
        self.softcap = softcap
        self.fixed_cuts = fixed_cuts
        self._grown = 0  # tokens appended to every branch since the plan
        self._backend, self.backend_reason = open_backend(backend, self.heads, self.device)
        self._ones: Tensor | None = None  # the default scale of fp8
        if self.kv_dtype == FP8:
            if not self._backend.reads_fp8:
                wanted = f"None for backend {self.backend} on this device"
                raise InputError(expected_got("kv_dtype", wanted, FP8))
            self._ones = torch.ones(num_kv_heads, device=self.device)
        self._plan: AttentionPlan | None = None
        self._base: tuple[Forest, AttentionPlan] | None = None  # the last plan from scratch
        self._unplanned: Forest | None = None  # the present forest, if its plan is a mended one
        self.plan_s = 0.0
        self._op_id = register(self)

    @property
    def backend(self) -> str:
        """Name of the backend in use."""
        return self._backend.name

    @property
    def tuning(self) -> Tuning | None:
        """The workers that the backend has plans cut for, and their costs; None: no workers."""
        return self._backend.tuning

    @property
    def kv_bytes_read(self) -> int:
        """Bytes of K and V read by all runs since the last reset."""
        return self._backend.kv_bytes_read

    def reset_counters(self) -> None:
        """Set `kv_bytes_read` to 0."""
        self._backend.kv_bytes_read = 0

    def plan(self, forest: Forest, *, may_mend: bool = False) -> AttentionPlan:
        """Build the plan of one step; every `run` until the next call uses it.

        Args:
            may_mend: where only tips have grown and slots moved since a plan of before, and work is
                cut for workers, its cuts may stay. That is about twice as fast, and the last bits
                of results then depend on what was planned before.
        """
        begin = time.perf_counter()
        plan = self._mended(forest) if may_mend else None
        self._unplanned = None if plan is None else forest
        if plan is None:
            plan = self._from_scratch(forest)
            self._base = forest, plan
        self._backend.prepare(forest, plan)
        self._plan, self._grown = plan, 0
        self.plan_s += time.perf_counter() - begin
        return plan

    def renew(self) -> None:
        """Cut anew what was mended, for the next plan to be mended from; nothing is sent.

        To be called when the device has its work, as it takes as long as a plan.
        """
        if self._unplanned is not None:
            forest, self._unplanned = self._unplanned, None
            self._base = forest, self._from_scratch(forest)

    def _mended(self, forest: Forest) -> AttentionPlan | None:
        """The last plan made from scratch with its cuts, if it fits; only of evenly cut work."""
        if self._base is None or self.tuning is None or not self._base[1].names_workers:
            return None
        before, plan = self._base
        return mend_plan(plan, before, forest)

    def _from_scratch(self, forest: Forest) -> AttentionPlan:
        method, why = self.method, "asked for"
        if method == "auto" and self._backend.auto_method is not None:
            method = self._backend.auto_method
            why = f"what backend {self.backend} plans for every forest"
        tuning = self.tuning
        if self.fixed_cuts is not None:
            tuning = replace(tuning or Tuning(), fixed_cuts=self.fixed_cuts)
        return build_plan(forest, method, heads=self.heads, tuning=tuning, why=why)

    def reserve(self, *, rows: int, nodes: int) -> None:
        """Make room once, so that a CUDA graph captured later serves every forest up to this size.

        Addresses and grids stay as they are from now on: a replay sees the latest plan. The present
        plan is gone. On a CPU there is nothing to fix.

        Args:
            rows, nodes: of the largest forest, at least 1 each. The room is ample for methods that
                share; `per_branch` and `lean`, which list every path, and `fixed_cuts` of long
                contexts may need more nodes.
        Raises:
            InputError: a number below 1. Afterwards `plan` raises it too, for a forest that needs
                more room, and the plan before stays.
        """
        for name, value in (("rows", rows), ("nodes", nodes)):
            if value < 1:
                raise InputError(expected_got(name, "at least 1", value))
        self._plan = None
        self._backend.reserve(rows=rows, nodes=nodes)

    def advance(self) -> bool:
        """Take over a step that appended one token to every row's node, without a new plan.

        The present plan holds for it if every row is the last token of a node of its own with
        nothing below, and the new token's K and V lie in the slot after the node's last. The caller
        answers for the slots. On a GPU this costs a few microseconds of host time and never waits.

        Returns:
            False, with nothing changed, where the plan does not allow it, where the backend knows
            no growth, or where so much has grown that a new plan pays: call `plan` then.
        """
        self._planned()
        if not self._backend.advance():
            return False
        self._grown += 1
        return True

    def run(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        window: int | None = None,
        k_scale: Tensor | None = None,
        v_scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attention of one layer.

        Args:
            q: [Q, Hq, D], rows in the order of the forest's query_node.
            k, v: [num_slots, Hkv, D], possibly strided views of a larger pool. Slots outside the
                forest may hold anything.
            window: if given, a row whose own token is at position p sees positions above
                p - window only.
            k_scale, v_scale: [Hkv] float32, with kv_dtype float8_e4m3fn only: k stands for
                k * k_scale, head by head, and v for v * v_scale. Default ones.
        Returns:
            out [Q, Hq, D] like q; lse [Q, Hq], natural log, float32 (float64 for float64 inputs).
            A row that sees nothing gives 0 and -inf.
        Raises:
            InputError: no plan, or a shape, dtype or device that does not match.
        """
        # nothing else here: torch.compile traces this method, and would guard on what it reads
        out, lse = tree_attention(q, k, v, self._op_id, window, k_scale, v_scale)
        return out, lse

    def run_planned(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        window: int | None,
        k_scale: Tensor | None,
        v_scale: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The body of the operator that `run` calls; see ops.py."""
        plan = self._planned()
        self._check_inputs(plan, q, k, v)
        check_window(window)
        layer = LayerOptions(
            scale=self.scale,
            softcap=self.softcap,
            window=window,
            k_scale=self._scale_of("k_scale", k_scale),
            v_scale=self._scale_of("v_scale", v_scale),
        )
        return self._backend.run(q, k, v, layer)

    def explain(self, *, bandwidth_bytes_per_s: float = 20e9) -> PlanReport:
        """What the current plan reads per layer, as made, and how long that takes.

        Args:
            bandwidth_bytes_per_s: gives the time where the backend has no cost table.
        """
        return explain(
            self._planned(),
            self.heads,
            tuning=self.tuning,
            bandwidth_bytes_per_s=bandwidth_bytes_per_s,
        )

    def _planned(self) -> AttentionPlan:
        if self._plan is None:
            raise InputError(expected_got("TreeAttention", "plan(forest) first", "no plan yet"))
        return self._plan

    def _check_inputs(self, plan: AttentionPlan, q: Tensor, k: Tensor, v: Tensor) -> None:
        check_shapes(plan, self.heads, q, k, v, grown=self._grown)
        check_tensor("q", q, self.dtype, self.device)
        check_tensor("k", k, self.kv_dtype, self.device)
        check_tensor("v", v, self.kv_dtype, self.device)

    def _scale_of(self, name: str, scale: Tensor | None) -> Tensor | None:
        """The checked scale of fp8 K or V, None for other K and V."""
        if scale is None:
            return self._ones
        if self._ones is None:
            wanted = f"None without kv_dtype {FP8}"
            raise InputError(expected_got(name, wanted, f"a tensor with {self.kv_dtype}"))
        check_scale(name, scale, self.heads, self.device)
        return scale.contiguous()
