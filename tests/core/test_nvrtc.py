"""Cubins are kept and found again; errors say what the compiler said. Needs no GPU."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ramify.core import nvrtc
from ramify.core.errors import BackendUnavailable
from ramify.core.nvrtc import compile_cubin, compile_with_log
from ramify.testing.compilers import has_nvrtc

needs_compiler = pytest.mark.skipif(not has_nvrtc(), reason="NVRTC is not installed")
ARCH = "sm_90a"
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
