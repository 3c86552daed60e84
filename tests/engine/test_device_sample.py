"""Sampling on the device: interpreted against the CPU, compiled for sm_90, and on a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is not installed"
)
HERE = Path(__file__).parent


def run_suite(**environment: str) -> None:
    """In a process of its own: Triton decides at import whether it interprets."""
    suite = str(HERE / "sample_suite.py")
    options = ["-q", "-x", "-p", "no:cacheprovider", "-o", "timeout=300"]
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, suite],
        env={**inherited, **environment},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


@pytest.mark.timeout(400)
def test_the_kernels_pass_their_suite_in_the_interpreter() -> None:
    run_suite(TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@pytest.mark.gpu
@pytest.mark.timeout(400)
def test_the_kernels_pass_their_suite_on_a_gpu() -> None:
    run_suite()


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from ramify.engine.kernels.draw import draw_kernel, fold_kernel, rank_kernel
from ramify.engine.kernels.edit import copy_kernel, edit_kernel
from ramify.engine.kernels.filter import filter_kernel

INTEGERS = ("row_ptr", "token_ptr", "ranks_ptr", "indptr_ptr", "cut_ptr", "top_k_ptr")
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
others += [build(filter_kernel, 32, WINDOW=4096, BLOCK=8192)]
assert all(len(kernel["cubin"]) for kernel in (draw, *others))
"""


@pytest.mark.timeout(300)
def test_the_kernels_compile_for_hopper_ahead_of_time(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-4000:]
