"""Which problems are held out: a fixed hash of the problem's key, never of its wording.

The hash is splitmix64 (Steele, Lea, Flood 2014) over packed integers; it is written for numpy
arrays so that training filters millions of problems with the very function that tests use.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HELDOUT_PER_1000 = 30


def mix(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash each 64-bit key; same in, same out on every machine."""
    with np.errstate(over="ignore"):
        z = keys.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def is_heldout(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """True for the keys that training must never see (3 % of them)."""
    return np.asarray(mix(keys) % np.uint64(1000) < np.uint64(HELDOUT_PER_1000))
