"""The machine and the software a number was measured on."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import ramify

LIBRARIES = (
    "torch",
    "triton",
    "flashinfer-python",
    "transformers",
    "diffusers",
    "tokenizers",
    "safetensors",
    "numpy",
)


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a benchmark row says about where it comes from."""

    ramify: str
    commit: str | None  # None outside a git checkout
    is_dirty: bool | None
    python: str
    libraries: dict[str, str]
    os: str
    cpu: str
    num_cores: int  # cores this process may use
    torch_threads: int
    gpu: str | None
    command: str  # paths from the root on are cut to their last part: rows are published


def environment(commit: str | None = None) -> Environment:
    """Look at this machine now.

    Args:
        commit: of the sources, where they are a copy and what git says here is not theirs.
    """
    found, is_dirty = (commit, None) if commit else _git_state()
    return Environment(
        ramify=ramify.__version__,
        commit=found,
        is_dirty=is_dirty,
        python=platform.python_version(),
        libraries={name: _version(name) or "not installed" for name in LIBRARIES},
        os=platform.platform(terse=True),
        cpu=cpu_name(),
        num_cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        torch_threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        command=_command(),
    )


def _command() -> str:
    program, *given = sys.argv
    named = (Path(one).name if Path(one).is_absolute() else one for one in given)
    return shlex.join([Path(program).name, *named])


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_state() -> tuple[str | None, bool | None]:
    """Commit of the source tree this code runs from, and whether it was changed since."""
    here = Path(__file__).parent
    commit = _git(here, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    changes = _git(here, "status", "--porcelain", "--untracked-files=no")
    return commit, bool(changes)


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
