"""Who is measured: every method of TreeAttention, and its peers. `open_provider` by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ramify.attention import BACKENDS, METHODS
from ramify.attention.plan.cost import Tuning
from ramify.bench.attention.providers.base import Absent, Prepared, Provider
from ramify.bench.attention.providers.flashinfer import BatchDecode, Cascade, Holistic, OnePass
from ramify.bench.attention.providers.ours import Ours
from ramify.bench.attention.providers.torch_flex import FlexAttention
from ramify.bench.attention.providers.torch_sdpa import Sdpa
from ramify.core.errors import InputError, expected_got

OURS: dict[str, Callable[[], Provider]] = {
    f"ramify:{method}": partial(Ours, method) for method in ("auto", *METHODS)
}
# the same by backend, to compare kernels with one another
BY_BACKEND: dict[str, Callable[[], Provider]] = {
    f"ramify:{method}@{backend}": partial(Ours, method, backend=backend)
    for backend in BACKENDS
    for method in ("auto", *METHODS)
}
PEERS: dict[str, Callable[[], Provider]] = {
    "flashinfer:decode": BatchDecode,
    "flashinfer:batch": Holistic,
    "flashinfer:cascade": partial(Cascade, "auto"),
    "flashinfer:cascade_fa2": partial(Cascade, "fa2"),
    "flashinfer:one_pass": OnePass,
    "torch:flex": FlexAttention,
    "torch:sdpa": Sdpa,
}
SLOW = ("torch:flex",)  # compiles anew for every shape
UNCUT = "ramify:uncut"  # a unit reads the whole path of a branch, as FlashAttention-2 does
PROVIDERS: dict[str, Callable[[], Provider]] = {
    **OURS,
    **PEERS,
    **BY_BACKEND,
    UNCUT: partial(Ours, "per_branch", tuning=Tuning(num_workers=1)),
}
GROUPS: dict[str, Sequence[str]] = {
    "ours": tuple(OURS),
    "peers": tuple(name for name in PEERS if name not in SLOW),
    "all": (*OURS, *PEERS),
    "methods": tuple(name for name in OURS if name != "ramify:auto"),
    "none": (),
}

__all__ = [
    "BY_BACKEND",
    "GROUPS",
    "OURS",
    "PEERS",
    "PROVIDERS",
    "UNCUT",
    "Absent",
    "Prepared",
    "Provider",
    "names_of",
    "open_provider",
]


def open_provider(name: str) -> Provider:
    """A new provider, nothing planned or kept. `name` is one of PROVIDERS."""
    return PROVIDERS[name]()


def names_of(words: Sequence[str]) -> list[str]:
    """Provider names of groups and names, in order, each once. Raises InputError for others."""
    names: list[str] = []
    for word in words:
        if word not in GROUPS and word not in PROVIDERS:
            known = ", ".join((*GROUPS, *OURS, *PEERS, UNCUT)) + ", or ramify:<method>@<backend>"
            raise InputError(expected_got("providers", f"any of {known}", repr(word)))
        names += GROUPS.get(word, (word,))
    return list(dict.fromkeys(names))
