"""Which backend runs where."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from importlib.util import find_spec

import torch

from ramify.attention.backends.base import Backend
from ramify.attention.backends.cpu import CpuBackend
from ramify.attention.backends.reference import ReferenceBackend
from ramify.attention.plan import HeadShape
from ramify.core.errors import BackendUnavailable, InputError, expected_got

BACKENDS = ("hopper", "triton", "cpu", "reference")
PLANNED = ("flashinfer",)  # named by the design, not in this version

logger = logging.getLogger(__name__)


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
        name, reason = _auto(device, heads)
    if name == "hopper":
        return _open_hopper(heads, device), reason
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


def _open_hopper(heads: HeadShape, device: torch.device) -> Backend:
    from ramify.attention.backends.hopper import HopperBackend

    return HopperBackend(heads, device)


@lru_cache
def _auto(device: torch.device, heads: HeadShape) -> tuple[str, str]:
    """Cached, so that a fallback is logged once."""
    if device.type == "cpu":
        return "cpu", "auto: the device is a CPU"
    reason = f"auto: no kernel for device {device.type} in this version"
    if device.type == "cuda":
        try:
            _open_hopper(heads, device)
            return "hopper", "auto: the device is a Hopper GPU"
        except BackendUnavailable as error:
            why = f"auto: {error.reason} for backend hopper"
        if heads.itemsize <= 4 and find_spec("triton") is not None:
            logger.info("attention runs on the triton backend (%s)", why)
            return "triton", why
        reason = (
            "auto: float64" if heads.itemsize > 4 else "auto: the package triton is not installed"
        )
    logger.warning("attention runs on the slow reference backend (%s)", reason)
    return "reference", reason
