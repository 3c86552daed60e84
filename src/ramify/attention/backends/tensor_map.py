"""Tensor maps: how Hopper's copy engine (TMA) sees a KV pool, as boxes of tokens of one head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ramify.attention.backends.nvrtc import bindings, checked

MAP_BYTES = 128
BOX_COLUMNS = 64  # elements of a row that a box holds: the 128 bytes that its swizzle permutes


def encode_boxes(pool: Tensor, tokens: Sequence[int]) -> bytes:
    """Maps of `pool` [num_slots, Hkv, D], 16 bit, one for each box size, one after another.

    A box is 64 elements of one head of so many consecutive slots, swizzled by 128 bytes as wgmma
    reads it. What lies outside the pool reads as 0.
    """
    driver = bindings("driver")
    num_slots, num_heads, head_dim = pool.shape
    kinds = driver.CUtensorMapDataType
    kind = {
        torch.bfloat16: kinds.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        torch.float16: kinds.CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
    }[pool.dtype]
    word64, word32 = driver.cuuint64_t, driver.cuuint32_t
    stride = [pool.stride(axis) * pool.element_size() for axis in (1, 0)]
    maps = b""
    for size in tokens:
        (encoded,) = checked(
            driver.cuTensorMapEncodeTiled(
                kind,
                3,
                pool.data_ptr(),
                [word64(head_dim), word64(num_heads), word64(num_slots)],
                [word64(bytes_) for bytes_ in stride],
                [word32(BOX_COLUMNS), word32(1), word32(size)],
                [word32(1)] * 3,
                driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
                driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
                driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        )
        maps += b"".join(int(word).to_bytes(8, "little") for word in encoded.opaque)
    return maps
