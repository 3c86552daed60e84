"""FLOPs and kind of every operator we know, and how to teach one more.

Products count 2 per multiply-add, as in torch.utils.flop_counter; arithmetic per element counts 0,
since bytes bound it on every machine there is.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch

from ramify.core.errors import InputError, expected_got
from ramify.profile.operators import kinds

Formula = Callable[[tuple[Any, ...], dict[str, Any], Any], int]
"""From the arguments, keyword arguments and result of a call to its FLOPs."""

_FORMULAS: dict[str, tuple[str, Formula]] = {}


def register_formula(op: str, kind: str, flops: Formula | None = None) -> None:
    """Teach the recorder an operator.

    Args:
        op: its name without the overload, as reports print it: `aten.mm`, `mylib.fused_mlp`.
        kind: one of `operators.kinds.KINDS`.
        flops: from `(args, kwargs, result)` to FLOPs, tensors as the call got them; None for 0.
    Raises:
        InputError: the kind is none of ours.
    """
    if kind not in kinds.KINDS:
        raise InputError(expected_got("kind", "one of " + ", ".join(kinds.KINDS), repr(kind)))
    _FORMULAS[op] = (kind, flops or _no_flops)


def formula_of(func: torch._ops.OpOverload) -> tuple[str, Formula] | None:
    """Kind and FLOPs of an operator; None for one we do not know."""
    name = op_name(func)
    if (found := _FORMULAS.get(name)) is not None:
        return found
    if name.startswith(_COLLECTIVES):
        return kinds.COMMUNICATION, _no_flops
    if torch.Tag.pointwise in func.tags:
        return kinds.ELEMENTWISE, _no_flops
    return None


def registered_kind(name: str) -> str | None:
    """The kind of an operator by its name; None where it has no formula of its own."""
    found = _FORMULAS.get(name)
    return None if found is None else found[0]


def op_name(func: torch._ops.OpOverload) -> str:
    """`aten.convolution` of `aten::convolution.default`; an in-place variant is the operator."""
    namespace, _, name = func._schema.name.partition("::")
    return f"{namespace}.{name if name.startswith('__') else name.rstrip('_')}"


def _no_flops(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    return 0


def _product(first: int) -> Formula:
    """FLOPs of `[.., m, k] @ [.., k, n]`, which are arguments `first` and the next."""

    def flops(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
        left, right = args[first].shape, args[first + 1].shape
        return 2 * prod(left) * (right[-1] if len(right) > 1 else 1)

    return flops


def _convolution(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """Each output element takes a weight column; transposed, each input element sends one."""
    x, weight = args[0], args[1]
    is_transposed = args[6] if len(args) > 6 else False
    positions = prod(x.shape[2:]) if is_transposed else prod(result.shape[2:])
    return 2 * int(x.shape[0]) * positions * prod(weight.shape)


_COLLECTIVES = ("c10d.", "_c10d_functional.", "c10d_functional.")

for _op, _first in (("mm", 0), ("mv", 0), ("addmm", 1), ("addmv", 1), ("_scaled_mm", 0)):
    register_formula(f"aten.{_op}", kinds.LINEAR, _product(_first))
for _op in ("convolution", "_convolution"):
    register_formula(f"aten.{_op}", kinds.CONVOLUTION, _convolution)
# products of two activations: attention that a model writes out itself
for _op, _first in (("bmm", 0), ("baddbmm", 1)):
    register_formula(f"aten.{_op}", kinds.SPATIAL, _product(_first))
for _op in "native_group_norm".split():
    register_formula(f"aten.{_op}", kinds.GROUP_NORM)
for _op in "native_layer_norm native_batch_norm _fused_rms_norm cudnn_batch_norm".split():
    register_formula(f"aten.{_op}", kinds.NORM)
for _op in "embedding _embedding_bag".split():
    register_formula(f"aten.{_op}", kinds.EMBEDDING)
for _op in (
    # reductions
    "sum mean amax amin max min argmax argmin var var_mean std prod cumsum any all norm "
    "linalg_vector_norm _softmax _log_softmax _safe_softmax topk sort logsumexp "
    # copies and fills
    "clone copy _to_copy cat stack fill zero repeat roll flip constant_pad_nd index index_select "
    "index_put index_copy gather scatter scatter_add slice_scatter select_scatter contiguous "
    "repeat_interleave tril triu masked_fill masked_select narrow_copy "
    "zeros zeros_like ones ones_like full full_like new_zeros new_ones new_full arange linspace "
    "scalar_tensor eye one_hot randn rand randn_like normal bernoulli _local_scalar_dense "
    "pixel_shuffle pixel_unshuffle nonzero channel_shuffle reflection_pad1d reflection_pad2d "
    "replication_pad1d replication_pad2d replication_pad3d "
    # resizing
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d "
    "upsample_bilinear2d upsample_bicubic2d avg_pool1d avg_pool2d avg_pool3d "
    "_adaptive_avg_pool2d max_pool2d_with_indices glu polar view_as_complex"
).split():
    register_formula(f"aten.{_op}", kinds.ELEMENTWISE)
