"""njit compiles, keeps its result on disk, and works where nothing can be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

MODULE = """
from ramify.core.jit import njit

@njit
def total(values):
    result = 0
    for index in range(len(values)):
        result += values[index]
    return result

@njit(nogil=True)
def largest(values):
    result = values[0]
    for value in values:
        result = max(result, value)
    return result
"""
CALL = """
import numpy as np, loops
print(loops.total(np.arange(5)), loops.largest(np.arange(5)))
print(sum(loops.total.stats.cache_hits.values()))
"""


def run_loops(folder: Path, **env: str) -> list[str]:
    """Import the module from `folder` in a fresh interpreter, call it, return what it prints."""
    setup = f"import sys; sys.path[:] = {[str(folder), *sys.path]!r}\n"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", setup + CALL],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **env},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "loops.py").write_text(MODULE, encoding="utf-8")
    return tmp_path / "src"


def test_the_second_process_compiles_nothing(folder: Path) -> None:
    assert run_loops(folder) == ["10 4", "0"]
    assert run_loops(folder) == ["10 4", "1"]


def test_works_where_no_directory_can_be_written(folder: Path) -> None:
    # a file in the place of every directory that numba would try; root may write anywhere else
    (folder / "__pycache__").write_text("", encoding="utf-8")
    blocked = str(folder / "loops.py")
    env = {"HOME": blocked, "XDG_CACHE_HOME": blocked, "NUMBA_CACHE_DIR": ""}
    assert run_loops(folder, **env) == ["10 4", "0"]


def test_other_errors_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    from ramify.core import jit

    def fail(**options: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(jit.numba, "njit", fail)
    with pytest.raises(RuntimeError, match="something else"):
        jit.njit(np.sum)
