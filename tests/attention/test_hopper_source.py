"""The CUDA kernel compiles ahead of time, without a GPU; how far its plans may grow."""

from __future__ import annotations

import ctypes
import re

import pytest

from ramify.attention.backends.hopper import ARCH, HEAD_DIMS, MOST_GROWN, _Params, most_growth
from ramify.attention.kernels.hopper.source import (
    MAX_SHARED_BYTES,
    KernelConstants,
    hopper_source,
)
from ramify.core.forest import Forest
from ramify.core.nvrtc import compile_with_log
from ramify.testing.compilers import has_nvrtc

needs_compiler = pytest.mark.skipif(not has_nvrtc(), reason="NVRTC is not installed")

PLAIN = KernelConstants(head_dim=128, group=4, is_bf16=True, has_softcap=False, has_window=False)
VARIANTS = {
    "plain": PLAIN,
    "mha_128": KernelConstants(
        head_dim=128, group=1, is_bf16=False, has_softcap=False, has_window=True
    ),
    "odd_group": KernelConstants(
        head_dim=128, group=7, is_bf16=True, has_softcap=True, has_window=True
    ),
    "mqa_16": KernelConstants(
        head_dim=128, group=16, is_bf16=True, has_softcap=True, has_window=False
    ),
    "mqa_64": KernelConstants(
        head_dim=64, group=64, is_bf16=True, has_softcap=False, has_window=True
    ),
    "dim_96": KernelConstants(
        head_dim=96, group=4, is_bf16=False, has_softcap=True, has_window=True
    ),
    "dim_96_mha": KernelConstants(
        head_dim=96, group=1, is_bf16=True, has_softcap=False, has_window=False
    ),
    "dim_64": KernelConstants(
        head_dim=64, group=4, is_bf16=False, has_softcap=False, has_window=False
    ),
    "dim_64_capped": KernelConstants(
        head_dim=64, group=7, is_bf16=True, has_softcap=True, has_window=True
    ),
    "dim_32": KernelConstants(
        head_dim=32, group=1, is_bf16=True, has_softcap=True, has_window=True
    ),
    "dim_32_mqa": KernelConstants(
        head_dim=32, group=16, is_bf16=False, has_softcap=False, has_window=False
    ),
}


def params_checks() -> str:
    """Claims about the struct that the host passes: the sizes of its fields, and its own."""
    claims = [f"sizeof(Params::{name}) == {ctypes.sizeof(kind)}" for name, kind in _Params._fields_]
    claims.append(f"sizeof(Params) == {ctypes.sizeof(_Params)}")
    return "\n".join(f'static_assert({claim}, "{claim}");' for claim in claims)


def test_the_host_lists_the_parameters_as_the_kernel_does() -> None:
    (body,) = re.findall(r"(?s)struct Params \{(.*?)\};", hopper_source(PLAIN))
    declared = re.findall(r"(\w+)\s*[,;]", re.sub(r"//.*", "", body))
    assert declared == [name for name, _ in _Params._fields_]


@needs_compiler
@pytest.mark.parametrize("constants", VARIANTS.values(), ids=VARIANTS)
def test_variants_compile_with_products_in_flight_and_in_their_registers(
    constants: KernelConstants,
) -> None:
    source = "\n".join([hopper_source(constants), params_checks()])
    cubin, log = compile_with_log(source, ARCH, ["--ptxas-options=-v"])
    assert cubin.startswith(b"\x7fELF")
    assert b"forest_attention" in cubin and b"merge_partials" in cubin
    # a slip in the use of accumulators makes the compiler wait for every product
    assert "instructions are serialized" not in log and "warning" not in log, log
    # 384 threads of 168 registers fill an SM; the kernel moves them between its warps
    assert "Used 168 registers" in log, log


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_shared_memory_holds_a_ring_of_stages(head_dim: int) -> None:
    constants = KernelConstants(
        head_dim=head_dim, group=4, is_bf16=True, has_softcap=False, has_window=False
    )
    assert constants.shared_bytes <= MAX_SHARED_BYTES == 232_448
    assert constants.stages >= 4


def test_short_branches_may_grow_less_before_a_new_plan() -> None:
    """A plan that is cut for 50 branches of one token is no plan for 50 branches of 60."""

    def forest(branches: int, tokens: int) -> Forest:
        parent, length = [-1] + [0] * branches, [4000] + [tokens] * branches
        begin = [0, *range(4000, 4000 + branches * tokens, tokens)]
        return Forest.from_nodes(parent, length, begin, range(1, branches + 1))

    growth = {tokens: most_growth(forest(50, tokens)) for tokens in (1, 8, 80, 400, 4000)}
    assert growth == {1: 1, 8: 1, 80: 10, 400: 50, 4000: MOST_GROWN}
    assert most_growth(Forest.from_nodes([-1], [3], [0], [])) == 0
