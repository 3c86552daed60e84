"""Which device a benchmark runs on."""

from __future__ import annotations

import torch

from ramify.core.errors import InputError, expected_got


def bench_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one. Raises InputError for a device that is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise InputError(expected_got("device", "auto, cpu, or cuda where there is one", name))
    return torch.device(name)
