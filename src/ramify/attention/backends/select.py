"""The interface of a backend, and which one runs where."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from ramify.attention.backends.cpu import CpuBackend
from ramify.attention.backends.reference import ReferenceBackend
from ramify.attention.plan import AttentionPlan, HeadShape
from ramify.attention.plan.fused import FusedTuning
from ramify.core.errors import BackendUnavailable, InputError, expected_got
from ramify.core.forest import Forest

BACKENDS = ("triton", "cpu", "reference")
PLANNED = ("flashinfer",)  # named by the design, not in this version

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """Executes plans on one device. `kv_bytes_read` grows by what each run reads."""

    name: str
    kv_bytes_read: int

    @property
    def auto_method(self) -> str | None:
        """The method that "auto" means here; None lets the forest decide."""

    @property
    def tuning(self) -> FusedTuning | None:
        """What the fused planner should know of the device."""

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
    reason = "asked for"
    if name == "auto":
        name, reason = _auto(device.type, heads.itemsize)
    if name == "triton":
        return _open_triton(heads, device), reason
    if name == "cpu" and device.type != "cpu":
        raise BackendUnavailable(name, f"expected device cpu, got {device}")
    if name == "cpu":
        return CpuBackend(heads, device), reason
    return ReferenceBackend(heads, device), reason


def _open_triton(heads: HeadShape, device: torch.device) -> Backend:
    if find_spec("triton") is None:
        raise BackendUnavailable("triton", "the package triton is not installed")
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise BackendUnavailable("triton", f"expected device cuda, got {device}")
    # a machine without triton never comes here
    from ramify.attention.backends.triton import TritonBackend

    return TritonBackend(heads, device)


@lru_cache
def _auto(device_type: str, itemsize: int) -> tuple[str, str]:
    """Cached, so that a fallback is logged once."""
    if device_type == "cpu":
        return "cpu", "auto: the device is a CPU"
    reason = f"auto: no kernel for device {device_type} in this version"
    if device_type == "cuda":
        if itemsize <= 4 and find_spec("triton") is not None:
            return "triton", "auto: the device is an NVIDIA GPU"
        reason = "auto: float64" if itemsize > 4 else "auto: the package triton is not installed"
    logger.warning("attention runs on the slow reference backend (%s)", reason)
    return "reference", reason
