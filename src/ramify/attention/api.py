"""TreeAttention: validate, choose, call. Plan once per step, run once per layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ramify.attention.backends import LayerOptions, open_backend
from ramify.attention.plan import AttentionPlan, HeadShape, PlanReport, build_plan, explain
from ramify.attention.plan.build import check_method
from ramify.core.errors import InputError, expected_got
from ramify.core.forest import Forest

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


class TreeAttention:
    """Attention of many rows over a forest of shared KV, for one shape of heads.

    Args:
        num_q_heads, num_kv_heads, head_dim: Hq a multiple of Hkv; D even.
        dtype: of q, k and v: bfloat16, float16, float32 or float64.
        device: where q, k and v live.
        method: auto, per_branch, node, node_chunk, flatten or fused.
        backend: auto, triton, cpu or reference.
        scale: multiplies q . k; default 1 / sqrt(D).
        softcap: if given, logits become softcap * tanh(logits / softcap).
    Raises:
        InputError: an argument out of range.
        BackendUnavailable: the backend cannot run here.
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
    ) -> None:
        _check_heads(num_q_heads, num_kv_heads, head_dim, dtype)
        check_method(method)
        if softcap is not None and not softcap > 0:
            raise InputError(expected_got("softcap", "None or above 0", softcap))
        if scale is not None and not math.isfinite(scale):
            raise InputError(expected_got("scale", "a finite number", scale))
        self.heads = HeadShape(
            num_q_heads=num_q_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            itemsize=dtype.itemsize,
        )
        self.dtype = dtype
        self.device = torch.device(device)
        self.method = method
        self.scale = head_dim**-0.5 if scale is None else scale
        self.softcap = softcap
        self._backend, self.backend_reason = open_backend(backend, self.heads, self.device)
        self._plan: AttentionPlan | None = None

    @property
    def backend(self) -> str:
        """Name of the backend in use."""
        return self._backend.name

    @property
    def kv_bytes_read(self) -> int:
        """Bytes of K and V read by all runs since the last reset."""
        return self._backend.kv_bytes_read

    def reset_counters(self) -> None:
        """Set `kv_bytes_read` to 0."""
        self._backend.kv_bytes_read = 0

    def plan(self, forest: Forest) -> AttentionPlan:
        """Build the plan of one step; every `run` until the next call uses it."""
        method, auto = self.method, self._backend.auto_method
        if method == "auto" and auto is not None:
            method = auto
        self._plan = build_plan(forest, method, heads=self.heads, tuning=self._backend.tuning)
        self._backend.prepare(forest, self._plan)
        return self._plan

    def run(
        self, q: Tensor, k: Tensor, v: Tensor, window: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attention of one layer.

        Args:
            q: [Q, Hq, D], rows in the order of the forest's query_node.
            k, v: [num_slots, Hkv, D], possibly strided views of a larger pool. Slots outside the
                forest may hold anything.
            window: if given, a row whose own token is at position p sees positions above
                p - window only.
        Returns:
            out [Q, Hq, D] like q; lse [Q, Hq], natural log, float32 (float64 for float64 inputs).
            A row that sees nothing gives 0 and -inf.
        Raises:
            InputError: no plan, or a shape, dtype or device that does not match.
        """
        plan = self._planned()
        self._check_inputs(plan, q, k, v)
        if window is not None and window < 1:
            raise InputError(expected_got("window", "None or at least 1", window))
        layer = LayerOptions(scale=self.scale, softcap=self.softcap, window=window)
        return self._backend.run(q, k, v, layer)

    def explain(self, *, bandwidth_bytes_per_s: float = 20e9) -> PlanReport:
        """What the current plan reads per layer, and how long that takes at a bandwidth."""
        return explain(self._planned(), self.heads, bandwidth_bytes_per_s=bandwidth_bytes_per_s)

    def _planned(self) -> AttentionPlan:
        if self._plan is None:
            raise InputError(expected_got("TreeAttention", "plan(forest) first", "no plan yet"))
        return self._plan

    def _check_inputs(self, plan: AttentionPlan, q: Tensor, k: Tensor, v: Tensor) -> None:
        shape = (plan.num_rows, self.heads.num_q_heads, self.heads.head_dim)
        if tuple(q.shape) != shape:
            raise InputError(expected_got("q", f"shape {list(shape)}", list(q.shape)))
        tail = (self.heads.num_kv_heads, self.heads.head_dim)
        for name, pool in (("k", k), ("v", v)):
            if pool.dim() != 3 or tuple(pool.shape[1:]) != tail:
                wanted = f"shape [num_slots, {tail[0]}, {tail[1]}]"
                raise InputError(expected_got(name, wanted, list(pool.shape)))
            if len(pool) < plan.end_slot:
                raise InputError(expected_got(name, f"{plan.end_slot} slots or more", len(pool)))
        for name, tensor in (("q", q), ("k", k), ("v", v)):
            if tensor.dtype != self.dtype:
                raise InputError(expected_got(name, self.dtype, tensor.dtype))
            if tensor.device.type != self.device.type:
                raise InputError(expected_got(name, f"device {self.device}", tensor.device))


def _check_heads(num_q_heads: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> None:
    if num_kv_heads < 1:
        raise InputError(expected_got("num_kv_heads", "at least 1", num_kv_heads))
    if num_q_heads < 1 or num_q_heads % num_kv_heads:
        wanted = f"a multiple of num_kv_heads = {num_kv_heads}"
        raise InputError(expected_got("num_q_heads", wanted, num_q_heads))
    if head_dim < 2 or head_dim % 2:
        raise InputError(expected_got("head_dim", "an even number, at least 2", head_dim))
    if dtype not in DTYPES:
        raise InputError(expected_got("dtype", ", ".join(map(str, DTYPES)), dtype))
