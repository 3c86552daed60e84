"""What a family file states: the traits of its layers and how they are read from config.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ramify.models.fields import ConfigFields


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What tells one family of decoders from another.

    `layer_windows` has one entry per layer: None sees the whole context, w sees the last w tokens,
    the row's own included.
    """

    layer_windows: tuple[int | None, ...]
    has_qkv_bias: bool = False
    has_out_bias: bool = False
    has_mlp_bias: bool = False
    has_qk_norm: bool = False


@dataclass(frozen=True, kw_only=True)
class Family:
    """A supported architecture: its names in config.json and how its own fields are read.

    `default_head_dim` None means hidden_size / num_attention_heads. `assumes_mha`: a file without
    `num_key_value_heads` means as many as query heads; elsewhere the field must be there.
    """

    architecture: str
    model_type: str
    read_traits: Callable[[ConfigFields, int], Traits]
    default_head_dim: int | None = None
    assumes_mha: bool = False
