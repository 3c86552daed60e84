"""Which compilers of GPU code are installed here; none of them needs a GPU."""

from __future__ import annotations

import importlib.util

from ramify.core.errors import BackendUnavailable
from ramify.core.nvrtc import bindings


def has_nvrtc() -> bool:
    """Whether NVRTC is there, as with torch's CUDA builds and the `dev` extra on Linux."""
    if importlib.util.find_spec("cuda") is None:
        return False
    try:
        bindings("nvrtc")
    except BackendUnavailable:
        return False
    return True
