"""Sampling on the device: interpreted against the CPU, compiled for sm_90, and on a GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ramify.testing.processes import run_compiling, run_interpreted, run_suite

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is not installed"
)
SUITE = Path(__file__).parent / "sample_suite.py"


@pytest.mark.timeout(400)
def test_the_kernels_pass_their_suite_in_the_interpreter() -> None:
    run_interpreted(SUITE)


@pytest.mark.gpu
@pytest.mark.timeout(400)
def test_the_kernels_pass_their_suite_on_a_gpu() -> None:
    run_suite(SUITE)


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from ramify.engine.kernels.draw import draw_kernel, fold_kernel, rank_kernel
from ramify.engine.kernels.edit import copy_kernel, edit_kernel, mask_kernel
from ramify.engine.kernels.filter import filter_kernel

INTEGERS = ("row_ptr", "token_ptr", "ranks_ptr", "indptr_ptr", "cut_ptr", "top_k_ptr")
INTEGERS += ("mask_row_ptr", "mask_ptr")
POINTERS = {name: "*i32" for name in INTEGERS}
POINTERS |= {name: "*i64" for name in ("stream_ptr", "position_ptr", "tokens_ptr")}

def build(kernel, num_warps=4, **constants):
    names = kernel.arg_names
    signature = {name: "constexpr" if name.isupper() else "i32" for name in names}
    pointers = [name for name in names if name.endswith("_ptr")]
    signature |= {name: POINTERS.get(name, "*fp32") for name in pointers}
    if "logits_ptr" in names:
        signature["logits_ptr"] = "*bf16"
    aligned = [*pointers, *{"logits_stride", "vocab_size"}.intersection(names)]
    attrs = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    places = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, places, attrs)
    return compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": num_warps}).asm

draw = build(draw_kernel, BLOCK=2048, FAST=True)
assert "lg2.approx" in draw["ptx"] and "fma.rn.f64" in draw["ptx"]
assert ".v4.b32" in draw["ptx"]
others = [build(fold_kernel, 1, PARTS=64), build(rank_kernel, 8, BLOCK=4096)]
others += [build(copy_kernel, BLOCK=2048), build(edit_kernel, BLOCK=1024)]
others += [build(mask_kernel, BLOCK=2048)]
others += [build(filter_kernel, 32, WINDOW=4096, BLOCK=8192)]
assert all(len(kernel["cubin"]) for kernel in (draw, *others))
"""


@pytest.mark.timeout(300)
def test_the_kernels_compile_for_hopper_ahead_of_time(tmp_path: Path) -> None:
    run_compiling("-c", COMPILE, cache=tmp_path)
