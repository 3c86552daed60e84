"""The Triton kernels of the models room compile for the GPU they are meant for."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ramify.testing.processes import run_compiling

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is not installed"
)


@pytest.mark.timeout(300)
def test_they_compile_for_hopper_ahead_of_time(tmp_path: Path) -> None:
    run_compiling(str(Path(__file__).parent / "compiled.py"), cache=tmp_path)
