"""Kernel tests in processes of their own: Triton decides at import whether it interprets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

INTERPRET = "TRITON_INTERPRET"


def run_suite(suite: Path, **environment: str) -> None:
    """Run a file of tests on the device that its kernels find; fails with what it printed.

    Args:
        environment: variables added to this process's, of which TRITON_INTERPRET is left out.
    """
    options = ["-q", "-x", "-p", "no:cacheprovider", "-o", "timeout=300"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(suite)],
        env={**_not_interpreting(), **environment},
        cwd=suite.parents[2],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


def run_interpreted(suite: Path) -> None:
    """Run a file of tests in Triton's interpreter."""
    run_suite(suite, **{INTERPRET: "1", "OMP_NUM_THREADS": "1"})


def run_compiling(*arguments: str, cache: Path) -> None:
    """Run a program that compiles kernels ahead of time, into an empty cache.

    Args:
        arguments: of Python: a file, or `-c` and the program.
    """
    run = subprocess.run(
        [sys.executable, *arguments],
        env={**_not_interpreting(), "TRITON_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-4000:]


def _not_interpreting() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != INTERPRET}
