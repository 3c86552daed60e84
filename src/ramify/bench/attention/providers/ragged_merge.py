"""One ragged merge of attention partials for the one-pass peer (its library has none).

Grid (rows, heads); a program folds its row's partials in list order. lse is in base 2, as
FlashInfer gives it. Source: FlashInfer, Ye et al. 2025 (attention state).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _ragged_merge_kernel(
    out_ptr,  # [Q, H, D]
    part_ptr,  # [P, H, D]
    lse2_ptr,  # [P, H] float32
    indptr_ptr,  # [Q + 1] int32
    index_ptr,  # [P] int32
    num_heads,
    HEAD_DIM: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    offs_d = tl.arange(0, HEAD_DIM)
    best = -float("inf")
    total = 0.0
    acc = tl.zeros([HEAD_DIM], dtype=tl.float32)
    for place in range(tl.load(indptr_ptr + row), tl.load(indptr_ptr + row + 1)):
        part = tl.load(index_ptr + place).to(tl.int64) * num_heads + head
        lse2 = tl.load(lse2_ptr + part)
        value = tl.load(part_ptr + part * HEAD_DIM + offs_d).to(tl.float32)
        new = tl.maximum(best, lse2)
        shift = tl.where(new == -float("inf"), 0.0, new)  # so far only empty pieces
        keep, add = tl.exp2(best - shift), tl.exp2(lse2 - shift)
        acc, total, best = acc * keep + value * add, total * keep + add, new
    out = (acc / total).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + (row * num_heads + head) * HEAD_DIM + offs_d, out)


def ragged_merge(part: Tensor, lse2: Tensor, indptr: Tensor, index: Tensor, out: Tensor) -> Tensor:
    """Merge part [P, H, D] with lse2 [P, H] by CSR over rows into out [Q, H, D]."""
    num_heads, head_dim = part.shape[1:]
    _ragged_merge_kernel[(len(out), num_heads)](
        out, part, lse2, indptr, index, num_heads, HEAD_DIM=head_dim, num_warps=1
    )
    return out


def merge_lists(rows: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """CSR of the partials of each row, for partials whose rows are `rows` [P]; both int32."""
    count = torch.bincount(rows, minlength=num_rows)
    indptr = torch.zeros(num_rows + 1, dtype=torch.int32, device=rows.device)
    indptr[1:] = count.cumsum(0)
    return indptr, rows.argsort(stable=True).to(torch.int32)
