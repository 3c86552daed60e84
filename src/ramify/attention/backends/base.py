"""The interface of a backend, and what a layer asks of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ramify.attention.plan import AttentionPlan, HeadShape
from ramify.attention.plan.cost import Tuning
from ramify.core.forest import Forest


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerOptions:
    """What may differ from layer to layer under one plan; checked by `TreeAttention`."""

    scale: float  # multiplies q . k
    softcap: float | None = None  # logits become softcap * tanh(logits / softcap)
    window: int | None = None  # a row at position p sees positions above p - window
    k_scale: Tensor | None = None  # [Hkv] float32, with fp8 K: k = k_fp8 * k_scale
    v_scale: Tensor | None = None  # [Hkv] float32, with fp8 V


class Backend(Protocol):
    """Executes plans on one device. `kv_bytes_read` grows by what each run reads.

    Inherit from it for the constructor and for the defaults of what only some backends can.
    """

    name: str
    heads: HeadShape
    device: torch.device
    kv_bytes_read: int
    auto_method: str | None = None  # the method that "auto" means; None lets the forest decide
    tuning: Tuning | None = None  # what the fused planner should know of the device
    reads_fp8: bool = False  # K and V may be float8_e4m3fn

    def __init__(self, heads: HeadShape, device: torch.device) -> None:
        self.heads = heads
        self.device = device
        self.kv_bytes_read = 0

    def reserve(self, *, rows: int, nodes: int) -> None:
        """Fix addresses and grids for forests up to this size, where a graph holds them."""
        return

    def prepare(self, forest: Forest, plan: AttentionPlan) -> None:
        """Take the forest and plan of the coming runs."""

    def advance(self) -> bool:
        """Let every row's own node be one token longer; False where only a new plan can do that."""
        return False

    def run(self, q: Tensor, k: Tensor, v: Tensor, layer: LayerOptions) -> tuple[Tensor, Tensor]:
        """Attention of one layer: out [Q, Hq, D] like q, lse [Q, Hq]."""
