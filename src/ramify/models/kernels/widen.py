"""An fp8 weight as a 16-bit one, for products of many rows.

Maths        out[n, k] = scale[n] * weight[n, k], rounded once
Grid         (N, K / BLOCK)
Traffic      reads one byte an element, writes two
Source       reference: ../quantise.py::Fp8Weight
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_wait

from ramify.models.kernels.rms import launch_options
from ramify.models.quantise import Fp8Weight

BLOCK = 4096


@triton.jit
def widen_kernel(
    out_ptr, weight_ptr, scale_ptr,     # [N, K], [N, K] fp8, [N] fp32
    num_k,
    BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK elements of one output channel."""
    channel = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = k < num_k
    weight = tl.load(weight_ptr + channel * num_k + k, mask=mask, other=0.0).to(tl.float32)
    out = (weight * tl.load(scale_ptr + channel)).to(out_ptr.dtype.element_ty)
    if PDL:
        gdc_wait()  # the memory of `out` may be in use until here
    tl.store(out_ptr + channel * num_k + k, out, mask=mask)


def widen(weight: Fp8Weight, dtype: torch.dtype) -> Tensor:
    """weight [in, out] in `dtype`: a new tensor, the transposed view of [out, in]."""
    num_n, num_k = weight.data.shape
    out = torch.empty(num_n, num_k, dtype=dtype, device=weight.data.device)
    block = min(BLOCK, triton.next_power_of_2(num_k))
    widen_kernel[(num_n, triton.cdiv(num_k, block))](
        out, weight.data, weight.scale, num_k,
        BLOCK=block, num_warps=4, **launch_options(out.device),
    )  # fmt: skip
    return out.t()
