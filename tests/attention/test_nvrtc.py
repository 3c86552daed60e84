"""The CUDA kernels compile ahead of time, without a GPU; cubins are kept and found again."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import re
from pathlib import Path

import pytest

from ramify.attention.backends import nvrtc
from ramify.attention.backends.hopper import ARCH, HEAD_DIMS, MOST_GROWN, _Params, most_growth
from ramify.attention.backends.nvrtc import compile_cubin, compile_with_log
from ramify.attention.kernels.hopper.source import (
    MAX_SHARED_BYTES,
    KernelConstants,
    hopper_source,
)
from ramify.core.errors import BackendUnavailable
from ramify.core.forest import Forest


def has_compiler() -> bool:
    """Whether NVRTC is there, as with torch's CUDA builds and the `dev` extra on Linux."""
    if importlib.util.find_spec("cuda") is None:
        return False
    try:
        nvrtc.bindings("nvrtc")
    except BackendUnavailable:
        return False
    return True


needs_compiler = pytest.mark.skipif(not has_compiler(), reason="NVRTC is not installed")

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


TINY = 'extern "C" __global__ void twice(int *x) { x[threadIdx.x] *= FACTOR; }'


@needs_compiler
def test_a_cubin_is_compiled_once_and_then_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAMIFY_CACHE_DIR", str(tmp_path / "new"))
    cubin = compile_cubin(TINY, ARCH, ["-DFACTOR=2"])
    (kept,) = (tmp_path / "new" / "cubins").iterdir()
    assert kept.read_bytes() == cubin
    kept.write_bytes(b"as kept")
    assert compile_cubin(TINY, ARCH, ["-DFACTOR=2"]) == b"as kept"
    # other options, another architecture and another source are other cubins
    others = [(TINY, ARCH, ["-DFACTOR=3"]), (TINY, "sm_90", ["-DFACTOR=2"]), (TINY + "\n", ARCH)]
    for source, arch, *options in others:
        assert compile_cubin(source, arch, *options or [["-DFACTOR=2"]]) != b"as kept"
    assert len(list((tmp_path / "new" / "cubins").iterdir())) == 4


@needs_compiler
def test_a_cache_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAMIFY_CACHE_DIR", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert compile_cubin(TINY, ARCH, ["-DFACTOR=2"]).startswith(b"\x7fELF")
    assert "compiled kernels cannot be kept" in caplog.text


@needs_compiler
def test_a_source_that_does_not_compile_shows_the_compilers_words() -> None:
    with pytest.raises(AssertionError, match=r'kernel.cu\(1\).*"FACTOR" is undefined'):
        compile_with_log(TINY, ARCH)


def test_without_a_compiler_the_backend_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"no {name}")

    monkeypatch.setattr(nvrtc, "import_module", missing)
    with pytest.raises(BackendUnavailable, match=r"cuda.bindings and NVRTC are needed: no cuda"):
        compile_cubin(TINY, ARCH)


@needs_compiler
def test_an_empty_log_leaves_the_bytes_of_others_alone() -> None:
    """The log of a clean compilation is one zero, and Python shares each single byte."""
    compile_with_log('extern "C" __global__ void nothing() {}', ARCH)
    assert bytes([32])[0] == 32


def test_short_branches_may_grow_less_before_a_new_plan() -> None:
    """A plan that is cut for 50 branches of one token is no plan for 50 branches of 60."""

    def forest(branches: int, tokens: int) -> Forest:
        parent, length = [-1] + [0] * branches, [4000] + [tokens] * branches
        begin = [0, *range(4000, 4000 + branches * tokens, tokens)]
        return Forest.from_nodes(parent, length, begin, range(1, branches + 1))

    growth = {tokens: most_growth(forest(50, tokens)) for tokens in (1, 8, 80, 400, 4000)}
    assert growth == {1: 1, 8: 1, 80: 10, 400: 50, 4000: MOST_GROWN}
    assert most_growth(Forest.from_nodes([-1], [3], [0], [])) == 0
