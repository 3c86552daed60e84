"""Environment variables: every one that Ramify reads or sets.

| variable           | default           | meaning                                              |
|--------------------|-------------------|------------------------------------------------------|
| `OMP_WAIT_POLICY`  | `PASSIVE`         | command line and tests: idle CPU threads sleep       |
| `RAMIFY_CACHE_DIR` | `~/.cache/ramify` | compiled GPU kernels                                 |
| `RAMIFY_WORKLOADS` | unset             | DeFT's recorded trees, for the tests that replay them |

`TORCH_NCCL_ASYNC_ERROR_HANDLING` is set to 0, unless it is set, where several GPUs share a model.
"""

from __future__ import annotations

import os
from pathlib import Path

CACHE_DIR = "RAMIFY_CACHE_DIR"
WORKLOADS = "RAMIFY_WORKLOADS"


def cache_dir() -> Path:
    """Where files are kept that can be made again; it may not exist yet."""
    given = os.environ.get(CACHE_DIR)
    return Path(given) if given else Path.home() / ".cache" / "ramify"


def sleep_while_waiting() -> None:
    """Let CPU threads sleep between operations instead of spinning; call before importing torch.

    Steps of small models are many short operations: on a busy machine spinning threads hold up the
    very threads they wait for, and a step took nine times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_nccl_errors_ours() -> None:
    """Let the engine answer when GPUs lose one another, where torch would end the process.

    Call before a NCCL process group is made.
    """
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
