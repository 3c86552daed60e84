"""What TreeAttention accepts: heads, dtypes, and the tensors of one run. Raises InputError."""

from __future__ import annotations

import torch
from torch import Tensor

from ramify.attention.plan import AttentionPlan, HeadShape
from ramify.core.errors import InputError, expected_got

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
FP8 = torch.float8_e4m3fn


def check_heads(num_q_heads: int, num_kv_heads: int, head_dim: int) -> None:
    """Hq a multiple of Hkv, D even."""
    if num_kv_heads < 1:
        raise InputError(expected_got("num_kv_heads", "at least 1", num_kv_heads))
    if num_q_heads < 1 or num_q_heads % num_kv_heads:
        wanted = f"a multiple of num_kv_heads = {num_kv_heads}"
        raise InputError(expected_got("num_q_heads", wanted, num_q_heads))
    if head_dim < 2 or head_dim % 2:
        raise InputError(expected_got("head_dim", "an even number, at least 2", head_dim))


def check_dtypes(dtype: torch.dtype, kv_dtype: torch.dtype | None) -> None:
    """fp8 K and V go with 16 and 32 bit queries: no kernel multiplies them in float64."""
    if dtype not in DTYPES:
        raise InputError(expected_got("dtype", ", ".join(map(str, DTYPES)), dtype))
    if kv_dtype not in (None, FP8):
        raise InputError(expected_got("kv_dtype", f"None or {FP8}", kv_dtype))
    if kv_dtype == FP8 and dtype == torch.float64:
        raise InputError(expected_got("dtype", f"at most 32 bits with kv_dtype {FP8}", dtype))


def check_window(window: int | None) -> None:
    """A window holds the row's own token at least."""
    if window is not None and window < 1:
        raise InputError(expected_got("window", "None or at least 1", window))


def check_shapes(
    plan: AttentionPlan, heads: HeadShape, q: Tensor, k: Tensor, v: Tensor, *, grown: int = 0
) -> None:
    """q [Q, Hq, D] as planned; k, v [num_slots, Hkv, D] with every slot that the plan reads.

    Args:
        grown: tokens appended to every branch since.
    """
    shape = (plan.num_rows, heads.num_q_heads, heads.head_dim)
    if tuple(q.shape) != shape:
        raise InputError(expected_got("q", f"shape {list(shape)}", list(q.shape)))
    tail = (heads.num_kv_heads, heads.head_dim)
    for name, pool in (("k", k), ("v", v)):
        if pool.dim() != 3 or tuple(pool.shape[1:]) != tail:
            wanted = f"shape [num_slots, {tail[0]}, {tail[1]}]"
            raise InputError(expected_got(name, wanted, list(pool.shape)))
        if len(pool) < plan.end_slot + grown:
            wanted = f"{plan.end_slot + grown} slots or more"
            raise InputError(expected_got(name, wanted, len(pool)))


def check_tensor(name: str, tensor: Tensor, dtype: torch.dtype, device: torch.device) -> None:
    """The dtype, and a device of the same type."""
    if tensor.dtype != dtype:
        raise InputError(expected_got(name, dtype, tensor.dtype))
    if tensor.device.type != device.type:
        raise InputError(expected_got(name, f"device {device}", tensor.device))


def check_scale(name: str, scale: Tensor, heads: HeadShape, device: torch.device) -> None:
    """[Hkv] float32 on the device."""
    if tuple(scale.shape) != (heads.num_kv_heads,):
        wanted = f"shape [num_kv_heads] = [{heads.num_kv_heads}]"
        raise InputError(expected_got(name, wanted, list(scale.shape)))
    check_tensor(name, scale, torch.float32, device)
