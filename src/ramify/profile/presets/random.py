"""Random numbers of weights and inputs, apart from torch's own.

Those are no longer usable after a CUDA graph could not be captured; ours are the same in every run.
"""

from __future__ import annotations

from functools import cache

import torch


@cache
def generator(device: str) -> torch.Generator:
    """The one of a device, named as torch names it."""
    return torch.Generator(device).manual_seed(0)
