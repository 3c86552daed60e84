"""Products of few rows with a long weight on a Hopper GPU: the variants, and their launches."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import torch
from torch import Tensor

from ramify.attention.backends.nvrtc import CudaKernel, bindings, checked, compile_cubin
from ramify.attention.kernels.hopper.source import ORDER

ARCH = "sm_90a"
MAX_SHARED_BYTES = 227 << 10
MAX_ROWS = 128
STEP = 64  # columns of a stage
TILES = (64, 128, 192, 256)
SPLITS = (1, 2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class ProductKernel:
    """What a variant is compiled for."""

    rows: int  # of x, padded: a multiple of 8
    tile: int  # rows of w of one CTA, a multiple of 64
    split: int  # CTAs that share a tile's columns
    is_bf16: bool  # else fp16
    adds: bool  # to what is in out

    @property
    def stages(self) -> int:
        """Stages of the ring: as many as shared memory holds."""
        return (MAX_SHARED_BYTES - 1024) // (128 * (self.tile + self.rows) + 16)

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a CTA."""
        return self.stages * (128 * (self.tile + self.rows) + 16)

    @property
    def threads(self) -> int:
        """Of a CTA: a warpgroup per 64 rows of w, and a warp that copies."""
        return 2 * self.tile + 32

    def source(self) -> str:
        """The translation unit."""
        kind = "bf16" if self.is_bf16 else "f16"
        defines = {
            "ROWS": self.rows,
            "TILE": self.tile,
            "SPLIT": self.split,
            "STAGES": self.stages,
            "BF16": int(self.is_bf16),
            "ADD": int(self.adds),
        }
        return "\n".join(
            [
                *(f"#define {name} {value}" for name, value in defines.items()),
                ORDER,
                _wgmma("wgmma_rows", self.rows, kind),
                files(__package__).joinpath("product.cu").read_text(encoding="utf-8"),
            ]
        )


def _wgmma(name: str, columns: int, kind: str) -> str:
    """acc [64, columns] += a [64, 16] times b [columns, 16] transposed, both in shared memory."""
    count = columns // 2
    acc = ", ".join(f"%{i}" for i in range(count))
    outputs = ", ".join(f'"+f"(acc[{i}])' for i in range(count))
    return f"""
__device__ __forceinline__ void {name}(float (&acc)[{count}], unsigned long long a,
                                       unsigned long long b) {{
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{kind}.{kind} "
      "{{{acc}}}, %{count}, %{count + 1}, 1, 1, 1, 0, 0;\\n"
      : {outputs}
      : "l"(a), "l"(b));
}}"""


class _TensorMap(ctypes.Structure):
    _fields_ = (("opaque", ctypes.c_uint64 * 16),)


class _Params(ctypes.Structure):
    """As the struct of the same name in product.cu."""

    _fields_ = (
        ("w", _TensorMap),
        ("x", _TensorMap),
        ("out", ctypes.c_void_p),
        ("num_rows", ctypes.c_int),
        ("num_out", ctypes.c_int),
        ("steps", ctypes.c_int),
    )


def _tensor_map(matrix: Tensor, box_rows: int) -> _TensorMap:
    """A row-major matrix [rows, columns] in boxes of box_rows x STEP, 128-byte swizzled."""
    driver = bindings("driver")
    rows, columns = matrix.shape
    kinds = driver.CUtensorMapDataType
    is_bf16 = matrix.dtype == torch.bfloat16
    (encoded,) = checked(
        driver.cuTensorMapEncodeTiled(
            kinds.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
            if is_bf16
            else kinds.CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            2,
            matrix.data_ptr(),
            [driver.cuuint64_t(columns), driver.cuuint64_t(rows)],
            [driver.cuuint64_t(matrix.stride(0) * matrix.itemsize)],
            [driver.cuuint32_t(STEP), driver.cuuint32_t(box_rows)],
            [driver.cuuint32_t(1), driver.cuuint32_t(1)],
            driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
            driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
            driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    )
    return _TensorMap.from_buffer_copy(ctypes.string_at(encoded.getPtr(), 128))


@cache
def _compiled(variant: ProductKernel, device: int) -> CudaKernel:
    cubin = compile_cubin(variant.source(), ARCH)
    return CudaKernel(cubin, "product", variant.shared_bytes, cluster=variant.split)


def product(x: Tensor, weight: Tensor, out: Tensor, *, adds: bool, tile: int, split: int) -> None:
    """out [M, N] = x [M, K] @ weight [N, K] transposed, or that added to out.

    All row-major in bfloat16 or float16, on one Hopper GPU; M at most MAX_ROWS; K a multiple of
    STEP * split, N of 4.
    """
    num_rows, num_in = x.shape
    num_out = len(weight)
    variant = ProductKernel(
        rows=_padded(num_rows), tile=tile, split=split, is_bf16=x.dtype == torch.bfloat16, adds=adds
    )
    params = _Params(
        w=_tensor_map(weight, tile),
        x=_tensor_map(x, variant.rows),
        out=out.data_ptr(),
        num_rows=num_rows,
        num_out=num_out,
        steps=num_in // STEP // split,
    )
    grid = -(-num_out // tile) * split
    stream = torch.cuda.current_stream(x.device).cuda_stream
    kernel = _compiled(variant, x.device.index or 0)
    kernel.launch(grid, variant.threads, stream, params, early=True)


def _padded(num_rows: int) -> int:
    """Few sizes: each is compiled."""
    return next(rows for rows in (8, 16, 32, 48, 64, 96, 128) if num_rows <= rows)
