"""The gated activation of the MLP, behind a norm whose weight is folded into the projection.

Maths        g, u = (x . W) / rms(x) + bias;  out = silu(g) * u, in float32, rounded once
Grid         (rows, parts): a program takes BLOCKS blocks of BLOCK columns of one row
Traffic      reads the projection once and x once a part (from L2), writes half as much
Source       SwiGLU, Shazeer 2020; reference: ../layers.py::DecoderLayer.mlp
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ramify.models.kernels.rms import block_x, inverse_rms, launch_options

BLOCK = 1024
# (rows up to which, blocks a program): the fewer rows, the more programs a row must give
FEW_ROWS = ((128, 1), (1024, 4))


@triton.jit
def gated_kernel(
    out_ptr,                    # [rows, INNER]
    gate_up_ptr, x_ptr,         # [rows, 2 * INNER], [rows, HIDDEN]
    bias_ptr,                   # [2 * INNER] or None
    eps,
    HIDDEN: tl.constexpr, INNER: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr,
    BLOCK_X: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: some columns of one row."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * (BLOCKS * BLOCK) + tl.arange(0, BLOCK)
    gate_ptr = gate_up_ptr + row * (2 * INNER)
    # loads go out before they are waited for: these before the sum over x, others a block ahead
    gate = tl.load(gate_ptr + column, mask=column < INNER, other=0.0)
    up = tl.load(gate_ptr + INNER + column, mask=column < INNER, other=0.0)
    scale = inverse_rms(x_ptr + row * HIDDEN, eps, HIDDEN, BLOCK_X)
    for block in range(BLOCKS):
        mask, next_column = column < INNER, column + BLOCK
        next_mask = (next_column < INNER) & (block + 1 < BLOCKS)
        next_gate = tl.load(gate_ptr + next_column, mask=next_mask, other=0.0)
        next_up = tl.load(gate_ptr + INNER + next_column, mask=next_mask, other=0.0)
        gate = gate.to(tl.float32) * scale
        up = up.to(tl.float32) * scale
        if bias_ptr is not None:
            gate += tl.load(bias_ptr + column, mask=mask, other=0.0).to(tl.float32)
            up += tl.load(bias_ptr + INNER + column, mask=mask, other=0.0).to(tl.float32)
        out = gate / (1.0 + tl.exp(-gate)) * up
        tl.store(out_ptr + row * INNER + column, out.to(out_ptr.dtype.element_ty), mask=mask)
        gate, up, column = next_gate, next_up, next_column


def gated(gate_up: Tensor, x: Tensor, *, out: Tensor, eps: float, bias: Tensor | None) -> None:
    """Write silu(gate) * up of each row.

    Args:
        gate_up: [rows, 2 * inner], x @ W with the norm's weight folded into W.
        x: [rows, hidden], whose root mean square divides gate_up.
        out: [rows, inner], written; all three contiguous.
        bias: [2 * inner] or None.
    """
    assert gate_up.is_contiguous() and x.is_contiguous() and out.is_contiguous()
    rows, inner = out.shape
    block = min(BLOCK, triton.next_power_of_2(inner))
    num_blocks = triton.cdiv(inner, block)
    per_program = next((blocks for limit, blocks in FEW_ROWS if rows <= limit), num_blocks)
    gated_kernel[(rows, triton.cdiv(num_blocks, per_program))](
        out, gate_up, x, bias, eps,
        HIDDEN=x.shape[1], INNER=inner, BLOCK=block, BLOCKS=per_program,
        BLOCK_X=block_x(x.shape[1]), num_warps=4, **launch_options(x.device),
    )  # fmt: skip
