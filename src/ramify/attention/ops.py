"""ramify::tree_attention: tree attention as one torch operator, the same eager and compiled.

The plan is no argument. It is host state that all layers of a step share and that the next step
replaces, so an operator taking it as tensors would drag a dozen inputs through every layer of every
graph. Instead `op_id` names a TreeAttention in a weak registry, and the operator looks up the
current plan when it runs: `torch.compile` and CUDA graphs see one opaque call whose only shapes are
those of q, and a new plan recompiles nothing. All checks happen inside for the same reason.
The price: equal arguments give other results under another plan, so a traced region must not plan.

Forward only. Registered with `Library` and not with `custom_op`, whose wrappers cost 5 to 10 us a
call instead of 2.
"""

from __future__ import annotations

import itertools
from typing import Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ramify.core.errors import InputError, expected_got

__all__ = ["register", "tree_attention"]

_library = torch.library.Library("ramify", "FRAGMENT")
_library.define(
    "tree_attention(Tensor q, Tensor k, Tensor v, SymInt op_id, int? window, Tensor? k_scale, "
    "Tensor? v_scale) -> (Tensor out, Tensor lse)",
    # compiled code must not hand over k and v with another axis last
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order),
)
tree_attention = torch.ops.ramify.tree_attention.default


class Runnable(Protocol):
    """What an `op_id` stands for: a TreeAttention."""

    def run_planned(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        window: int | None,
        k_scale: Tensor | None,
        v_scale: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Check the arguments and run the current plan."""


_next_id = itertools.count()
_runnables: WeakValueDictionary[int, Runnable] = WeakValueDictionary()


def register(runnable: Runnable) -> int:
    """An id for the operator, valid while `runnable` lives and never given again."""
    op_id = next(_next_id)
    _runnables[op_id] = runnable
    return op_id


@torch.library.impl(_library, "tree_attention", "CompositeExplicitAutograd")
def _run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    op_id: int,
    window: int | None,
    k_scale: Tensor | None,
    v_scale: Tensor | None,
) -> tuple[Tensor, Tensor]:
    runnable = _runnables.get(op_id)
    if runnable is None:
        raise InputError(expected_got("op_id", "the id of a living TreeAttention", op_id))
    return runnable.run_planned(q, k, v, window, k_scale, v_scale)


@torch.library.register_fake("ramify::tree_attention", lib=_library)
def _shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    op_id: int,
    window: int | None,
    k_scale: Tensor | None,
    v_scale: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Contiguous results for any number of rows; no plan is looked at."""
    for name, tensor in (("k", k), ("v", v), ("k_scale", k_scale), ("v_scale", v_scale)):
        # one meta tensor among real ones sends an eager call here
        if tensor is not None and tensor.device.type != q.device.type:
            raise InputError(expected_got(name, f"device {q.device}", tensor.device))
    lse_dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=lse_dtype)
