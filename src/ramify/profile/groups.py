"""Which part of a step a kernel belongs to, by its name; products also by their order."""

from __future__ import annotations

import re
from collections.abc import Sequence

LAYER_PRODUCTS = ("qkv product", "out product", "gate_up product", "down product")
HEAD_PRODUCT = "head product"
PRODUCTS = "products"

# the first that matches wins; names of CUDA kernels, Triton kernels and ATen operators
PATTERNS = (
    ("merge", r"merge"),
    ("attention", r"attend|attention|partial_kernel|flash|fmha"),
    ("rope and store", r"rope|index_copy"),
    ("gated", r"gated|silu"),
    ("sampling", r"^(draw|fold|rank|filter|edit|copy|mask|penalise|count|(part|fold)_top)_kernel$"),
    ("sampling", r"sample|topk|sort|softmax|argmax"),
    (PRODUCTS, r"gemm|gemv|nvjet|cutlass|xmma|splitk|matmul|addmm|::mm$|::linear$|product"),
    ("copies", r"memcpy|memset|copy|fill"),
)
OTHER = "other"
ORDER = (
    *LAYER_PRODUCTS, HEAD_PRODUCT, PRODUCTS,
    *dict.fromkeys(name for name, _ in PATTERNS if name != PRODUCTS), OTHER,
)  # fmt: skip
"""All groups, as tables list them."""

_COMPILED = [(name, re.compile(pattern, re.IGNORECASE)) for name, pattern in PATTERNS]
# the second half of a product: adds up parts that the kernel before it has left
_IS_REDUCTION = re.compile(r"splitk.?reduce", re.IGNORECASE)


def group_of(name: str) -> str:
    """The group of a kernel or operator, all products being one."""
    return next((group for group, pattern in _COMPILED if pattern.search(name)), OTHER)


def groups_of_step(names: Sequence[str], num_layers: int) -> list[str]:
    """The groups of a step's kernels, given in order.

    Products are told apart by their order where there are four per layer and one for the head;
    where there are more or fewer, for instance as a library splits one in two, they stay one group.
    """
    groups = [group_of(name) for name in names]
    is_reduction = [_IS_REDUCTION.search(name) is not None for name in names]
    found = [i for i, group in enumerate(groups) if group == PRODUCTS and not is_reduction[i]]
    if len(found) != len(LAYER_PRODUCTS) * num_layers + 1:
        return groups
    for order, index in enumerate(found):
        groups[index] = LAYER_PRODUCTS[order % len(LAYER_PRODUCTS)]
    groups[found[-1]] = HEAD_PRODUCT
    for index, group in enumerate(groups):
        if group == PRODUCTS and index and groups[index - 1].endswith("product"):
            groups[index] = groups[index - 1]
    return groups
