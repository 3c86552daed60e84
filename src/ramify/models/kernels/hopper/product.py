"""Products of few rows with a long weight on a Hopper GPU: the variants, and their launches."""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import torch
from torch import Tensor

from ramify.attention.kernels.hopper.source import MAX_SHARED_BYTES, PREAMBLE, instructions
from ramify.core.errors import BackendUnavailable
from ramify.core.nvrtc import CudaKernel, bindings, checked, compile_cubin, require_compiler

logger = logging.getLogger(__name__)

ARCH = "sm_90a"
PARTS = ("product.cu", "results.cu", "turned.cu", "entry.cu")
FEW_ROWS = 32
FEW_SHARED_BYTES = 160 << 10
MAX_ROWS = 128
STEP = 64  # columns of a stage
MAX_SPLIT = 2
BUSY, PLACED = 0.7, 0.85  # of the SMs: those that keep the memory busy; places of clusters of four


@dataclass(frozen=True, kw_only=True)
class ProductKernel:
    """What a variant is compiled for."""

    rows: int  # of x, padded: a multiple of 8
    tile: int  # rows of w of one CTA, a multiple of 64
    split: int  # CTAs that share a tile's columns
    share: int = 1  # tiles whose CTAs share what they read of x
    is_bf16: bool  # else fp16
    adds: bool = False  # to what is in out
    is_gated: bool = False
    is_turned: bool = False  # ends with turned heads, see turned.cu

    @property
    def stages(self) -> int:
        """Stages of the ring. With few rows, more than 160 KiB in flight gained nothing."""
        room = FEW_SHARED_BYTES if self.rows <= FEW_ROWS else MAX_SHARED_BYTES
        return (room - 4 * self.rows) // self._stage_bytes

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a CTA."""
        return self.stages * self._stage_bytes + 4 * self.rows

    @property
    def _stage_bytes(self) -> int:
        return 128 * (self.tile + self.rows) + 16

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
            "SHARE": self.share,
            "STAGES": self.stages,
            "BF16": int(self.is_bf16),
            "ADD": int(self.adds),
            "GATED": int(self.is_gated),
            "TURNED": int(self.is_turned),
        }
        return "\n".join(
            [
                *(f"#define {name} {value}" for name, value in defines.items()),
                PREAMBLE,
                instructions(),
                _wgmma("wgmma_rows", self.rows, kind),
                *(files(__package__).joinpath(part).read_text(encoding="utf-8") for part in PARTS),
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
        ("eps", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("k", "v", "angles", "positions", "slots")),
        *((name, ctypes.c_int64) for name in ("k_slot", "k_head", "v_slot", "v_head")),
        ("num_q_heads", ctypes.c_int),
        ("num_kv_heads", ctypes.c_int),
        ("padding", ctypes.c_char * 24),
    )


@lru_cache(maxsize=4096)
def _tensor_map(
    address: int, shape: tuple[int, int], stride: int, is_bf16: bool, box_rows: int
) -> _TensorMap:
    """A row-major matrix [rows, columns] in boxes of box_rows x STEP, 128-byte swizzled."""
    driver = bindings("driver")
    kinds = driver.CUtensorMapDataType
    rows, columns = shape
    (encoded,) = checked(
        driver.cuTensorMapEncodeTiled(
            kinds.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
            if is_bf16
            else kinds.CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            2,
            address,
            [driver.cuuint64_t(columns), driver.cuuint64_t(rows)],
            [driver.cuuint64_t(2 * stride)],
            [driver.cuuint32_t(STEP), driver.cuuint32_t(box_rows)],
            [driver.cuuint32_t(1), driver.cuuint32_t(1)],
            driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
            driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
            driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    )
    return _TensorMap.from_buffer_copy(ctypes.string_at(encoded.getPtr(), 128))


def _map_of(matrix: Tensor, box_rows: int) -> _TensorMap:
    is_bf16 = matrix.dtype == torch.bfloat16
    shape = (matrix.shape[0], matrix.shape[1])
    return _tensor_map(matrix.data_ptr(), shape, matrix.stride(0), is_bf16, box_rows)


@cache
def _compiled(variant: ProductKernel, device: int) -> CudaKernel:
    cubin = compile_cubin(variant.source(), ARCH)
    return CudaKernel(cubin, "product", variant.shared_bytes, cluster=variant.split * variant.share)


def is_available(device: torch.device) -> bool:
    """Whether the kernel runs there and can be compiled."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) != (9, 0):
        return False
    try:
        require_compiler()
    except BackendUnavailable as unavailable:
        logger.warning("products are left to cuBLAS: %s", unavailable)
        return False
    return True


def suits(matrix: Tensor) -> bool:
    """Whether the kernel can read x [M, K] or weight [N, K]."""
    return (
        matrix.dtype in (torch.bfloat16, torch.float16)
        and matrix.stride(1) == 1
        and matrix.shape[1] % (STEP * MAX_SPLIT) == 0
        and matrix.data_ptr() % 16 == 0
        and matrix.stride(0) % 8 == 0
    )


def product(x: Tensor, weight: Tensor, out: Tensor, *, adds: bool) -> None:
    """out = x @ weight transposed, or that added to out.

    Args:
        x: [M, K], M at most MAX_ROWS. weight: [N, K]. Both as `suits` wants them.
        out: [M, N] contiguous, like x.
    """
    rows = padded(len(x))
    tile, split, share = cut(len(weight), rows, _num_sms(x.device))
    is_bf16 = x.dtype == torch.bfloat16
    variant = ProductKernel(
        rows=rows, tile=tile, split=split, share=share, is_bf16=is_bf16, adds=adds
    )
    _launch(variant, x, weight, out, box_rows=tile)


def gated_product(x: Tensor, weight: Tensor, out: Tensor, *, eps: float) -> None:
    """out = silu(g) * u of g, u = RMSNorm(x) @ weight transposed, g its first half.

    Args:
        x: [M, K]. weight: [2 N, K], with the norm's weight folded in. Both as in `product`.
        out: [M, N] contiguous, like x.
        eps: of the norm.
    """
    is_bf16, rows = x.dtype == torch.bfloat16, padded(len(x))
    tile = widest_tile(rows)
    variant = ProductKernel(
        rows=rows, tile=tile, split=1, share=shared_by(rows), is_bf16=is_bf16, is_gated=True
    )
    _launch(variant, x, weight, out, box_rows=tile // 2, eps=eps)


def turned_product(
    x: Tensor,
    weight: Tensor,
    *,
    positions: Tensor,
    slots: Tensor,
    q: Tensor,
    k_pool: Tensor,
    v_pool: Tensor,
    rotary: Tensor,
    eps: float,
) -> None:
    """Attention's first product with what follows it: heads scaled, turned and put in their places.

    Args:
        x: [M, hidden], M at most MAX_ROWS. weight: [(Hq + 2 Hkv) D, hidden], with the norm's weight
            folded in. Both as in `product`, and as `turns` wants them.
        positions, slots: [M] int64.
        q: [M, Hq, D] contiguous, written.
        k_pool, v_pool: [num_slots, Hkv, D], written at `slots`.
        rotary: [num_positions, D], see rope.py::rotary_table.
        eps: of the norm.
    """
    is_bf16, rows = x.dtype == torch.bfloat16, padded(len(x))
    tile, split, share = cut(len(weight), rows, _num_sms(x.device))
    variant = ProductKernel(
        rows=rows, tile=tile, split=split, share=share, is_bf16=is_bf16, is_turned=True
    )
    heads = {
        "k": k_pool.data_ptr(),
        "v": v_pool.data_ptr(),
        "angles": rotary.data_ptr(),
        "positions": positions.data_ptr(),
        "slots": slots.data_ptr(),
        "k_slot": k_pool.stride(0),
        "k_head": k_pool.stride(1),
        "v_slot": v_pool.stride(0),
        "v_head": v_pool.stride(1),
        "num_q_heads": q.shape[1],
        "num_kv_heads": k_pool.shape[1],
    }
    _launch(variant, x, weight, q, box_rows=tile, num_out=len(weight), eps=eps, **heads)


def turns(x: Tensor, weight: Tensor, k_pool: Tensor, v_pool: Tensor) -> bool:
    """Whether `turned_product` can do it: a tile is a head, which lies in its pool as in `x`."""
    head_dim = k_pool.shape[2]
    tile, split, _ = cut(len(weight), padded(len(x)), _num_sms(x.device))
    is_four = all(
        pool.dtype == x.dtype and pool.stride(2) == 1 and pool.data_ptr() % 8 == 0
        and pool.stride(0) % 4 == pool.stride(1) % 4 == 0
        for pool in (k_pool, v_pool)
    )  # fmt: skip
    return (tile, split) == (head_dim, MAX_SPLIT) and len(weight) % tile == 0 and is_four


def _launch(
    variant: ProductKernel,
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    *,
    box_rows: int,
    num_out: int | None = None,
    eps: float = 0.0,
    **heads: int,
) -> None:
    assert out.is_contiguous() and out.dtype == x.dtype and len(x) <= MAX_ROWS
    num_out = out.shape[1] if num_out is None else num_out
    params = _Params(
        w=_map_of(weight, box_rows),
        x=_map_of(x, variant.rows // variant.share),
        out=out.data_ptr(),
        num_rows=len(x),
        num_out=num_out,
        steps=x.shape[1] // STEP // variant.split,
        eps=eps,
        **heads,
    )
    stream = torch.cuda.current_stream(x.device).cuda_stream
    kernel = _compiled(variant, x.device.index or 0)
    clusters = -(-num_out // (box_rows * variant.share))
    grid = clusters * variant.share * variant.split
    kernel.launch(grid, variant.threads, stream, params, early=True)


def cut(num_out: int, rows: int, num_sms: int) -> tuple[int, int, int]:
    """Tile, split and share of a product: the largest tile that still keeps most SMs reading.

    A larger tile reads the rows less often, and a split has to be folded; but a CTA has to read
    enough for the memory's latency not to matter, which BUSY of the SMs do for all. The split does
    not depend on the rows, so neither do their bits.
    """
    enough = BUSY * num_sms
    for tile in (256, 128):
        if tile <= widest_tile(rows) and -(-num_out // tile) >= enough:
            return tile, 1, 1
    ctas = MAX_SPLIT * -(-num_out // 128)
    if ctas < enough:
        return 64, MAX_SPLIT, 1
    # clusters of four do not find a place on all SMs
    shares = rows > 64 and ctas <= PLACED * num_sms
    return 128, MAX_SPLIT, 2 if shares else 1


def widest_tile(rows: int) -> int:
    """Rows of the weight that a CTA takes at most; many rows should be read seldom."""
    return 128 if rows <= FEW_ROWS else 256


def shared_by(rows: int) -> int:
    """CTAs of a gated product that share what they read of x: four where its rows can be parted."""
    return next(share for share in (4, 2, 1) if rows % (8 * share) == 0)


@cache
def _num_sms(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def padded(num_rows: int) -> int:
    """The rows that a variant is compiled for: few sizes."""
    return next(rows for rows in (8, 16, 32, 48, 64, 96, 128) if num_rows <= rows)
