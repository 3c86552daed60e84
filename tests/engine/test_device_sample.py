"""Sampling on the device: interpreted against the CPU, compiled for sm_90, and on a GPU.

The suite of draws that follow one another runs likewise: draws_suite.py.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ramify.testing.processes import run_compiling, run_interpreted, run_suite

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is not installed"
)
SUITES = [Path(__file__).parent / name for name in ("sample_suite.py", "draws_suite.py")]
each_suite = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.stem)


@each_suite
@pytest.mark.timeout(400)
def test_the_kernels_pass_their_suites_in_the_interpreter(suite: Path) -> None:
    run_interpreted(suite)


@pytest.mark.gpu
@each_suite
@pytest.mark.timeout(400)
def test_the_kernels_pass_their_suites_on_a_gpu(suite: Path) -> None:
    run_suite(suite)


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from ramify.engine.kernels.draw import draw_kernel, fold_kernel, rank_kernel
from ramify.engine.kernels.edit import copy_kernel, edit_kernel, mask_kernel
from ramify.engine.kernels.filter import filter_kernel
from ramify.engine.kernels.penalty import count_kernel, penalise_kernel
from ramify.engine.kernels.top import fold_top_kernel, part_top_kernel

INTEGERS = ("row_ptr", "token_ptr", "ranks_ptr", "indptr_ptr", "cut_ptr", "top_k_ptr")
INTEGERS += ("mask_row_ptr", "mask_ptr", "top_ptr", "keys_ptr", "places_ptr", "out_ptr")
POINTERS = {name: "*i32" for name in INTEGERS}
POINTERS |= {name: "*i64" for name in ("stream_ptr", "position_ptr", "tokens_ptr")}
POINTERS["count_ptr"] = "*i16"

def build(kernel, num_warps=4, options=None, **constants):
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
    options = {"num_warps": num_warps} | (options or {})
    return compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm

draw = build(draw_kernel, BLOCK=2048, FAST=True)
assert "lg2.approx" in draw["ptx"] and "fma.rn.f64" in draw["ptx"]
assert ".v4.b32" in draw["ptx"]
others = [build(fold_kernel, 1, PARTS=64), build(rank_kernel, 8, BLOCK=4096)]
others += [build(copy_kernel, BLOCK=2048), build(edit_kernel, BLOCK=1024)]
others += [build(mask_kernel, BLOCK=2048)]
others += [build(filter_kernel, 32, WINDOW=4096, BLOCK=8192)]
others += [build(part_top_kernel, MOST=32, BLOCK=2048), build(count_kernel, 1)]
others += [build(fold_top_kernel, 8, MOST=32, SIZE=2048)]
penalise = build(penalise_kernel, options={"enable_fp_fusion": False}, BLOCK=2048)
# products and sums apart, but for those of the division
assert "mul.rn.f32" in penalise["ptx"] or "mul.f32" in penalise["ptx"]
assert "fma" not in penalise["ptx"]
assert all(len(kernel["cubin"]) for kernel in (draw, penalise, *others))
"""


@pytest.mark.timeout(300)
def test_the_kernels_compile_for_hopper_ahead_of_time(tmp_path: Path) -> None:
    run_compiling("-c", COMPILE, cache=tmp_path)
