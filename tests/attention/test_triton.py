"""The Triton backend where there is no GPU: interpreted against fp64, and compiled for sm_90."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ramify.testing.processes import run_compiling, run_interpreted

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is not installed"
)
HERE = Path(__file__).parent


@pytest.mark.timeout(400)
def test_the_kernels_pass_their_suite_in_the_interpreter() -> None:
    run_interpreted(HERE / "interpreted.py")


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from ramify.attention.kernels.merge import merge_kernel
from ramify.attention.kernels.partial import partial_kernel

def build(kernel, constants, **options):
    names = kernel.arg_names
    signature = {name: "constexpr" if name.isupper() else "i32" for name in names}
    signature |= {name: "*fp32" for name in names if name.endswith("_ptr")}
    if not constants.get("FP8", True):
        constants = {**constants, "k_scale_ptr": None, "v_scale_ptr": None}
        signature |= {"k_scale_ptr": "constexpr", "v_scale_ptr": "constexpr"}
    for name in ("work", "piece", "token", "row", "indptr", "slot", "row_count"):
        if f"{name}_ptr" in names:
            signature[f"{name}_ptr"] = "*i32"
    for name in ("q_ptr", "k_ptr", "v_ptr", "out_ptr"):
        if name in names:
            signature[name] = "*fp8e4nv" if constants.get("FP8") and name[0] in "kv" else "*bf16"
    for name in ("scale_log2", "softcap"):
        if name in names:
            signature[name] = "fp32"
    strides = ("q_row", "q_head", "k_slot", "k_head", "v_slot", "v_head")
    aligned = [name for name in names if name.endswith("_ptr") or name in strides]
    aligned = [name for name in aligned if name not in constants]
    attrs = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    places = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, places, attrs)
    return compile(source, target=GPUTarget("cuda", 90, 32), options=options)

partial = dict(GROUP=4, BLOCK_N=64, HEAD_DIM=64, BLOCK_D=64, SOFTCAP=True, WINDOW=True, FAST=True,
               FP8=False, PRECISION="tf32", STAGES=2, GATHER_STAGES=3, PDL=True, CHAINED=True)
narrow = build(partial_kernel, dict(partial, TILE=16), num_warps=4, maxnreg=128)
assert "mma.sync" in narrow.asm["ptx"] and "cp.async" in narrow.asm["ptx"]
wide = build(partial_kernel, dict(partial, TILE=64), num_warps=4)
assert "wgmma.mma_async" in wide.asm["ptx"]
for tile in (16, 64, 128):
    fp8 = build(partial_kernel, dict(partial, TILE=tile, FP8=True), num_warps=4)
    assert "cvt.rn.f16x2.e4m3x2" in fp8.asm["ptx"] and "cp.async" in fp8.asm["ptx"]
merge = build(merge_kernel, dict(HEADS=1, FAN_IN=4, HEAD_DIM=64, BLOCK_D=64, PDL=True), num_warps=1)
assert all(len(kernel.asm["cubin"]) for kernel in (narrow, wide, merge))
"""


@pytest.mark.timeout(300)
def test_the_kernels_compile_for_hopper_ahead_of_time(tmp_path: Path) -> None:
    run_compiling("-c", COMPILE, cache=tmp_path)
