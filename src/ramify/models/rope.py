"""Rotary position embedding: reading its settings, its frequencies, its table of cosines and sines.

Variants      default   Su et al. 2021 (RoFormer)
              linear    positions divided by `factor`: Chen et al. 2023 (position interpolation)
              dynamic   NTK scaling by the current length; see below
              llama3    low frequencies divided by `factor`, a ramp between two wavelengths
              yarn      Peng et al. 2023: a ramp over dimensions, and a scale on cosines and sines
Dynamic NTK   Its frequencies change with the length of the sequence once that passes
              `max_position_embeddings`; before, they are the default ones. Keys in a tree are
              shared by branches of different lengths, so only the part before is meaningful here:
              `max_positions` stays at `max_position_embeddings`, where both agree exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ramify.models.fields import ConfigFields

DEFAULT_THETA = 10_000.0
ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Settings of the rotary embedding. Fields a `rope_type` does not use keep their defaults.

    `attention_factor` multiplies cosines and sines (yarn). `original_max_positions` is the context
    length before scaling (llama3, yarn).
    """

    rope_type: str = "default"
    theta: float = DEFAULT_THETA
    factor: float = 1.0
    original_max_positions: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True


def parse_rope(fields: ConfigFields, max_positions: int) -> RopeConfig:
    """Read `rope_parameters` (transformers 5), or `rope_theta` with `rope_scaling` (before).

    Raises:
        ConfigError: an unknown `rope_type`, or a field of it missing or out of range.
    """
    # a file that carries both is read as transformers reads it: the older name wins
    rope = fields.section(
        "rope_scaling" if fields.values.get("rope_scaling") else "rope_parameters"
    )
    for name, value in rope.values.items():
        if isinstance(value, dict):
            raise rope.error(name, "one set of settings for all layers", "settings per layer type")
    for owner in (fields, rope):
        if owner.number("partial_rotary_factor", default=1.0) != 1.0:
            raise owner.error("partial_rotary_factor", "1.0 (rotary on whole heads)")
    rope_type = rope.text("rope_type", default=rope.text("type", default="default"))
    theta = rope.number("rope_theta", above=1.0, default=_outer_theta(fields))
    if rope_type not in ROPE_TYPES:
        name = "rope_type" if rope.has("rope_type") else "type"
        raise rope.error(name, f"one of {', '.join(ROPE_TYPES)}")
    if rope_type == "default":
        return RopeConfig(theta=theta)
    if rope_type == "llama3":
        return _parse_llama3(fields, rope, theta, max_positions)
    if rope_type == "yarn":
        return _parse_yarn(fields, rope, theta, max_positions)
    return RopeConfig(rope_type=rope_type, theta=theta, factor=rope.number("factor"))


def _outer_theta(fields: ConfigFields) -> float:
    return fields.number("rope_theta", above=1.0, default=DEFAULT_THETA)


def _original_positions(fields: ConfigFields, rope: ConfigFields, max_positions: int) -> int:
    """A top-level `original_max_position_embeddings` wins over the nested one (transformers)."""
    nested = rope.integer("original_max_position_embeddings", default=max_positions)
    return fields.integer("original_max_position_embeddings", default=nested)


def _parse_llama3(
    fields: ConfigFields, rope: ConfigFields, theta: float, max_positions: int
) -> RopeConfig:
    low = rope.number("low_freq_factor")
    high = rope.number("high_freq_factor")
    if high <= low:
        raise rope.error("high_freq_factor", f"a number > low_freq_factor = {low:g}")
    return RopeConfig(
        rope_type="llama3",
        theta=theta,
        factor=rope.number("factor"),
        original_max_positions=_original_positions(fields, rope, max_positions),
        low_freq_factor=low,
        high_freq_factor=high,
    )


def _parse_yarn(
    fields: ConfigFields, rope: ConfigFields, theta: float, max_positions: int
) -> RopeConfig:
    original = _original_positions(fields, rope, max_positions)
    # an explicit null asks for the ratio of the two context lengths; no field at all is a mistake
    implied = max_positions / original if "factor" in rope.values else None
    factor = rope.number("factor", default=implied)
    return RopeConfig(
        rope_type="yarn",
        theta=theta,
        factor=factor,
        original_max_positions=original,
        attention_factor=rope.number("attention_factor", default=_yarn_attention(rope, factor)),
        beta_fast=rope.number("beta_fast", default=32.0),
        beta_slow=rope.number("beta_slow", default=1.0),
        truncate=rope.flag("truncate", default=True),
    )


def _yarn_attention(rope: ConfigFields, factor: float) -> float:
    """The scale of cosines and sines that yarn derives from how far the context is stretched."""

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1.0 else 0.1 * weight * math.log(factor) + 1.0

    if rope.values.get("mscale") and rope.values.get("mscale_all_dim"):
        return scale(rope.number("mscale")) / scale(rope.number("mscale_all_dim"))
    return scale(1.0)


def usable_positions(rope: RopeConfig, max_positions: int) -> int:
    """Positions the model is meant for, given `max_position_embeddings`.

    `linear` files state the length before scaling there, and so do many `yarn` files; `llama3`
    files state the final length, and `dynamic` has no meaning beyond it in a tree.
    """
    if rope.rope_type == "linear":
        return max(max_positions, int(max_positions * rope.factor))
    if rope.rope_type == "yarn":
        return max(max_positions, int(rope.original_max_positions * rope.factor))
    return max_positions


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Tensor:
    """Radians per position of each rotated pair: [head_dim / 2] float32 on the CPU."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    wavelength = rope.theta**exponents  # over 2 pi
    if rope.rope_type == "linear":
        return (1.0 / wavelength) / rope.factor
    if rope.rope_type == "llama3":
        return _llama3_frequencies(rope, 1.0 / wavelength)
    if rope.rope_type == "yarn":
        keep = _yarn_keep(rope, head_dim)
        return (1.0 / (rope.factor * wavelength)) * (1.0 - keep) + (1.0 / wavelength) * keep
    return 1.0 / wavelength


def _llama3_frequencies(rope: RopeConfig, frequency: Tensor) -> Tensor:
    """Keep waves that turn often within the original context, slow down the rare, blend between."""
    turns = rope.original_max_positions / (2 * math.pi / frequency)
    span = rope.high_freq_factor - rope.low_freq_factor
    keep = ((turns - rope.low_freq_factor) / span).clamp(0.0, 1.0)
    return (1.0 - keep) * frequency / rope.factor + keep * frequency


def _yarn_keep(rope: RopeConfig, head_dim: int) -> Tensor:
    """How much of each pair's speed is kept: 1 for fast pairs, 0 for slow ones. [head_dim / 2]."""

    def pair_turning(num_turns: float) -> float:
        """The (fractional) pair that makes this many turns within the original context."""
        turn_length = rope.original_max_positions / (num_turns * 2 * math.pi)
        return head_dim * math.log(turn_length) / (2 * math.log(rope.theta))

    begin, end = pair_turning(rope.beta_fast), pair_turning(rope.beta_slow)
    if rope.truncate:
        begin, end = math.floor(begin), math.ceil(end)
    begin, end = max(begin, 0), min(end, head_dim - 1)
    width = end - begin if end != begin else 1e-3
    pairs = torch.arange(head_dim // 2, dtype=torch.float32)
    return 1.0 - ((pairs - begin) / width).clamp(0.0, 1.0)


def rotary_table(
    rope: RopeConfig, head_dim: int, num_positions: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Cosines, then sines, of every position: [num_positions, head_dim] in `dtype`.

    Angles are taken in float32, as transformers does. A table rather than cosines per step: the
    bits of a token's rotation must not depend on its neighbours in the batch.
    """
    frequencies = inverse_frequencies(rope, head_dim).to(device)
    angles = torch.arange(num_positions, device=device).float()[:, None] * frequencies
    table = torch.empty(num_positions, head_dim, dtype=dtype, device=device)
    table[:, : head_dim // 2] = angles.cos() * rope.attention_factor
    table[:, head_dim // 2 :] = angles.sin() * rope.attention_factor
    return table
