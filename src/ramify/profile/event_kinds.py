"""The kind of a trace's event by its name: operators, and kernels that a compiler made."""

from __future__ import annotations

import re

import torch

from ramify.profile.operators import kinds
from ramify.profile.operators.formulas import formula_of, registered_kind

# torch.compile names a kernel after the operators in it, `triton_poi_fused_add_convolution_3` or
# `graph_0_cpp_fused_silu_1`; only templates (tem) hold a whole product, others what follows one
_COMPILED = re.compile(r"^triton_(poi|per|red|tem)_|cpp_fused")
_LIBRARIES = (
    (kinds.CONVOLUTION, re.compile(r"conv|fprop|implicit_gemm|nchwtonhwc|nhwctonchw", re.I)),
    (kinds.SPATIAL, re.compile(r"flash_fwd|fmha|attention|sdpa", re.I)),
    (kinds.LINEAR, re.compile(r"gemm|gemv|nvjet|cutlass|xmma|splitk", re.I)),
)
_PARTS = (
    (kinds.GROUP_NORM, ("group_norm",)),
    (kinds.NORM, ("layer_norm", "rms_norm", "batch_norm")),
    (kinds.EMBEDDING, ("embedding",)),
)


def kind_of_event(name: str) -> str | None:
    """The kind of a known operator or of a compiled kernel; None for others."""
    namespace, _, short = name.partition("::")
    if not short:
        return fused_kind(name)
    found = registered_kind(f"{namespace}.{short.rstrip('_')}")
    return _pointwise_kind(namespace, short) if found is None else found


def kind_of_kernel(kernel: str) -> str:
    """The kind of a kernel that no known operator launched, by its name.

    Compilers name operators, libraries their algorithm; what says neither is nearly always
    elementwise work or a copy.
    """
    if (fused := fused_kind(kernel)) is not None:
        return fused
    found = (kind for kind, pattern in _LIBRARIES if pattern.search(kernel))
    return next(found, kinds.ELEMENTWISE)


def fused_kind(kernel: str) -> str | None:
    """The kind of a kernel that torch.compile wrote: its heaviest operator's; None for others."""
    if _COMPILED.search(kernel) is None:
        return None
    if kernel.startswith("triton_tem"):
        return kinds.CONVOLUTION if "convolution" in kernel else kinds.LINEAR
    for kind, names in _PARTS:
        if any(name in kernel for name in names):
            return kind
    return kinds.ELEMENTWISE


def _pointwise_kind(namespace: str, short: str) -> str | None:
    packet = getattr(getattr(torch.ops, namespace), short, None)
    for overload in packet.overloads() if packet is not None else ():
        known = formula_of(getattr(packet, overload))
        if known is not None:
            return known[0]
    return None
