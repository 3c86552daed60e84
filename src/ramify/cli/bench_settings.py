"""How attention benchmarks measure, out of the flags that they share."""

from __future__ import annotations

import torch

from ramify.bench.attention.run import Settings
from ramify.cli.bench_options import MeasureOptions
from ramify.core.errors import InputError, expected_got

DTYPES = {name: getattr(torch, name) for name in ("bfloat16", "float16", "float32")}


def bench_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one. Raises InputError for a device that is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise InputError(expected_got("device", "auto, cpu, or cuda where there is one", name))
    return torch.device(name)


def bench_settings(options: MeasureOptions) -> Settings:
    """Raises InputError for a device or a dtype that there is not."""
    device = bench_device(options.device)
    dtype = options.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device.type == "cuda" else "float32"
    if dtype not in DTYPES:
        raise InputError(expected_got("dtype", f"auto, {', '.join(DTYPES)}", repr(dtype)))
    return Settings(
        device=device,
        dtype=DTYPES[dtype],
        repeats=options.repeats,
        seed=options.seed,
        commit=options.commit,
    )
