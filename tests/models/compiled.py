"""Compile every kernel of the models room for sm_90, without a GPU; test_kernels.py runs this."""

from __future__ import annotations

from typing import Any

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from ramify.models.kernels.fp8_matmul import TILES, fp8_matmul_kernel
from ramify.models.kernels.gated import gated_kernel
from ramify.models.kernels.pieces import BLOCK_K, split_kernel
from ramify.models.kernels.rope_store import rope_store_kernel
from ramify.models.kernels.widen import widen_kernel

FP8 = "*fp8e4nv"
TYPES = {
    "eps": "fp32", "position_ptr": "*i64", "slot_ptr": "*i64", "k_scale_ptr": "*fp32",
    "v_scale_ptr": "*fp32", "down_ptr": "*fp32", "weight_ptr": FP8, "scale_ptr": "*fp32",
    "part_ptr": "*fp32", "counter_ptr": "*i32", "hi_ptr": FP8, "lo_ptr": FP8,
}  # fmt: skip
UNALIGNED = ("eps", "num_rows", "blocks_per_split")


def build(kernel: Any, constants: dict[str, Any], num_warps: int = 4, **types: str) -> Any:
    """Pointers are to bfloat16 and other arguments int32 unless TYPES or `types` know better."""
    names = kernel.arg_names
    signature = {name: "*bf16" if name.endswith("_ptr") else "i32" for name in names}
    signature |= {name: kind for name, kind in (TYPES | types).items() if name in names}
    signature |= dict.fromkeys(constants, "constexpr")
    aligned = [name for name in names if name not in constants and name not in UNALIGNED]
    attrs = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    places = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, places, attrs)
    return compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": num_warps})


def check_small_kernels() -> None:
    rope = {
        "HIDDEN": 4096, "NUM_Q_HEADS": 32, "NUM_KV_HEADS": 8, "HEAD_DIM": 128, "BLOCK_HALF": 64,
        "BLOCK_X": 4096, "PDL": True,
    }  # fmt: skip
    bare = dict.fromkeys(("bias_ptr", "norm_ptr", "k_scale_ptr", "v_scale_ptr"))
    few = build(rope_store_kernel, rope | bare | {"BLOCK_H": 4, "BLOCKS": 1})
    many = build(rope_store_kernel, rope | {"BLOCK_H": 16, "BLOCKS": 3}, k_ptr=FP8, v_ptr=FP8)
    assert "cvt.rn.satfinite.e4m3x2.f32" in many.asm["ptx"]
    gated = {
        "HIDDEN": 4096, "INNER": 14336, "BLOCK": 1024, "BLOCKS": 4, "BLOCK_X": 4096,
        "bias_ptr": None, "PDL": True,
    }  # fmt: skip
    for kernel in (few, many, build(gated_kernel, gated)):
        assert "griddepcontrol.wait" in kernel.asm["ptx"] and "ld.global.v4" in kernel.asm["ptx"]


def check_fp8_matmul() -> None:
    build(split_kernel, {"BLOCK_K": BLOCK_K, "PDL": True}, num_warps=1)
    assert "v4" in build(widen_kernel, {"BLOCK": 4096, "PDL": True}).asm["ptx"]
    for tile in TILES:
        for splits in (1, 4):
            constants = {
                "BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "BLOCK_K": BLOCK_K,
                "SPLITS": splits, "RESIDUAL": splits > 1, "STAGES": tile.stages, "PDL": True,
            }  # fmt: skip
            if splits == 1:
                constants["part_ptr"] = None
            if tile.splits_x:
                constants |= {"lo_ptr": None, "down_ptr": None}
                kernel = build(fp8_matmul_kernel, constants, tile.num_warps)
            else:
                kernel = build(fp8_matmul_kernel, constants, tile.num_warps, x_ptr=FP8)
            ptx = kernel.asm["ptx"]
            assert f"m64n{tile.block_m}k32.f32.e4m3.e4m3" in ptx and "cp.async.cg" in ptx
            assert "prefetch.global.L2" in ptx and ("atom" in ptx) == (splits > 1)
            # `per_sm` programs fit into the shared memory of a multiprocessor of Hopper
            assert tile.per_sm * (kernel.metadata.shared + 1024) <= 228 * 1024


check_small_kernels()
check_fp8_matmul()
