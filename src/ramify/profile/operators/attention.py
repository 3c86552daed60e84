"""Scaled-dot-product attention as one record, and which kind of attention it is."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ramify.profile.operators import kinds
from ramify.profile.operators.record import AttentionShape

SDPA = "scaled_dot_product_attention"
PARAMETERS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
TEMPORAL_NAMES = ("temp_", "temporal", "motion_module", "transformer_in")


@dataclass(frozen=True, slots=True)
class Caller:
    """The innermost module that attention was called from."""

    path: str
    context_len: int | None  # positions of the `encoder_hidden_states` it was given


def arguments_of(args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of F.scaled_dot_product_attention, by name."""
    return dict(zip(PARAMETERS, args, strict=False)) | kwargs


def attention_shape(named: dict[str, Any], caller: Caller) -> AttentionShape:
    """Lengths of a call: q `[.., heads, q_len, head_dim]`, k, v `[.., kv_heads, kv_len, ..]`."""
    q, k, v = named["query"], named["key"], named["value"]
    heads = q.shape[-3] if q.dim() > 2 else 1
    return AttentionShape(
        batch=q.numel() // max(1, heads * q.shape[-2] * q.shape[-1]),
        heads=heads,
        q_len=q.shape[-2],
        kv_len=k.shape[-2],
        head_dim=q.shape[-1],
        value_dim=v.shape[-1],
        is_causal=bool(named.get("is_causal", False)),
        kv_source=kv_source(q.shape[-2], k.shape[-2], caller.context_len),
        itemsize=q.element_size(),
    )


def kv_source(q_len: int, kv_len: int, context_len: int | None) -> str:
    """Where keys come from: the sequence itself, a context, or both (Imagen's text keys)."""
    if context_len is not None:
        if kv_len == q_len + context_len:
            return "self+context"
        if kv_len == context_len:
            return "context"
    return "self" if kv_len == q_len else "context"


def attention_kind(shape: AttentionShape, caller: Caller, num_frames: int | None) -> str:
    """The kind of an attention.

    Args:
        num_frames: of the video; a self-attention of that length, of many sequences at once, is
            temporal even where no name says so.
    """
    if caller.context_len == shape.kv_len:
        return kinds.CROSS
    if any(name in caller.path for name in TEMPORAL_NAMES):
        return kinds.TEMPORAL
    if shape.is_causal and shape.q_len > 1:
        return kinds.PREFILL
    if num_frames is not None and 1 < num_frames == shape.q_len < shape.batch:
        return kinds.TEMPORAL
    if shape.q_len == 1:
        return kinds.DECODE
    return kinds.CROSS if shape.kv_source == "context" else kinds.SPATIAL


def output_like(named: dict[str, Any]) -> torch.Tensor:
    """What attention returns, by shape alone: `[.., heads, q_len, value_dim]`."""
    q, v = named["query"], named["value"]
    return q.new_empty((*q.shape[:-1], v.shape[-1]))


def context_length(
    module: torch.nn.Module, args: Sequence[Any], kwargs: dict[str, Any]
) -> int | None:
    """Positions of the context a module is called with, None where it is given none."""
    context = kwargs.get("encoder_hidden_states", kwargs.get("key_value_states"))
    if context is None and len(args) > 1:
        names = list(inspect.signature(module.forward).parameters)[: len(args)]
        if "encoder_hidden_states" in names:
            context = args[names.index("encoder_hidden_states")]
    if isinstance(context, torch.Tensor) and context.dim() > 2:
        return context.shape[-2]
    return None
