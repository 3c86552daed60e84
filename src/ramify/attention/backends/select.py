"""The interface of a backend, and which one runs where."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from ramify.attention.backends.cpu import CpuBackend
from ramify.attention.backends.reference import ReferenceBackend
from ramify.attention.plan import AttentionPlan, HeadShape
from ramify.core.errors import BackendUnavailable, InputError, expected_got
from ramify.core.forest import Forest

BACKENDS = ("cpu", "reference")
PLANNED = ("triton", "flashinfer")  # named by the design, not in this version

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """Executes plans on one device. `kv_bytes_read` grows by what each run reads."""

    name: str
    kv_bytes_read: int

    def prepare(self, forest: Forest, plan: AttentionPlan) -> None:
        """Take the forest and plan of the coming runs."""

    def run(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        softcap: float | None,
        window: int | None,
    ) -> tuple[Tensor, Tensor]:
        """Attention of one layer: out [Q, Hq, D] like q, lse [Q, Hq]."""


def open_backend(name: str, heads: HeadShape, device: torch.device) -> tuple[Backend, str]:
    """A backend by name, or the best one for the device, and the reason in words.

    Raises:
        BackendUnavailable: the backend cannot run here or is not in this version.
        InputError: no backend has this name.
    """
    if name in PLANNED:
        raise BackendUnavailable(name, f"not in this version, which has {', '.join(BACKENDS)}")
    if name not in (*BACKENDS, "auto"):
        raise InputError(expected_got("backend", f"auto, {', '.join(BACKENDS)}", repr(name)))
    if name == "auto":
        name, reason = _auto(device.type)
    elif name == "cpu" and device.type != "cpu":
        raise BackendUnavailable(name, f"expected device cpu, got {device}")
    else:
        reason = "asked for"
    make = CpuBackend if name == "cpu" else ReferenceBackend
    return make(heads, device), reason


@lru_cache
def _auto(device_type: str) -> tuple[str, str]:
    """Cached, so that a fallback is logged once."""
    if device_type == "cpu":
        return "cpu", "auto: the device is a CPU"
    reason = f"auto: no kernel for device {device_type} in this version"
    logger.warning("attention runs on the slow reference backend (%s)", reason)
    return "reference", reason
