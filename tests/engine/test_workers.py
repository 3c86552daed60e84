"""Engines of two processes that end: by force, by an error, by a hang, on purpose or by neglect."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch.distributed as dist
from transformers import LlamaForCausalLM

from ramify import LLM, SamplingParams, WorkerError
from ramify.core.config import EngineConfig
from ramify.engine import workers as workers_module
from ramify.engine.parallel import ParallelExecutor
from ramify.engine.workers import Workers

GREEDY = SamplingParams(max_tokens=8, temperature=0.0)


@pytest.fixture
def llm(tiny: tuple[Path, LlamaForCausalLM]) -> Iterator[LLM]:
    """An engine of two processes; afterwards nothing of it is left, however it ended."""
    made = LLM(str(tiny[0]), num_slots=200, run_ahead=True, tensor_parallel_size=2)
    made.generate([[1, 2, 3]], GREEDY)
    yield made
    made.close()
    assert not multiprocessing.active_children()
    assert not dist.is_initialized()
    made.close()  # once more does no harm
    with pytest.raises(WorkerError):
        made.generate([[1, 2, 3]], GREEDY)


def kill_worker(llm: LLM) -> None:
    (child,) = multiprocessing.active_children()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)


def stop_worker(llm: LLM) -> None:
    """It hangs: nothing is heard of it, and its connections stay."""
    (child,) = multiprocessing.active_children()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGSTOP)


def confuse_worker(llm: LLM) -> None:
    executor = llm.engine.executor
    assert isinstance(executor, ParallelExecutor)
    executor._workers.send("run", None)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (kill_worker, "rank 1: the process ended with exit code -9"),
        (stop_worker, "a step took longer than 2 s"),
        (confuse_worker, "rank 1: AttributeError: 'NoneType'"),
    ],
    ids=["killed", "hangs", "raises"],
)
def test_a_worker_that_fails_ends_the_engine(
    llm: LLM,
    break_it: Callable[[LLM], None],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(workers_module, "STEP_TIMEOUT_S", 2.0)
    break_it(llm)
    for _ in range(2):
        with pytest.raises(WorkerError, match=message):
            llm.generate([[1, 2, 3], [4, 5]], GREEDY)


def test_an_error_in_the_middle_of_a_step_ends_the_engine(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is in the step and waits for a sum that never comes."""

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    executor = llm.engine.executor
    assert isinstance(executor, ParallelExecutor)
    monkeypatch.setattr(executor._local, "run", fail)
    with pytest.raises(MemoryError, match="no room"):
        llm.generate([[1, 2, 3], [4, 5]], GREEDY)
    with pytest.raises(WorkerError, match="the first rank left a step: MemoryError"):
        llm.generate([[1, 2, 3], [4, 5]], GREEDY)


def test_a_worker_that_cannot_load_is_named(tmp_path: Path) -> None:
    workers = Workers()
    workers.start(tmp_path, EngineConfig(device="cpu", max_rows=8, tensor_parallel_size=2))
    with pytest.raises(WorkerError, match="rank 1: ConfigError: .*config.json"):
        workers.answers()


PROGRAM = """
import multiprocessing, sys
from ramify import LLM
if __name__ == "__main__":
    llm = LLM(sys.argv[1], num_slots=100, tensor_parallel_size=2)
    llm.generate([[1, 2, 3]])
    print(multiprocessing.active_children()[0].pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("is_killed", [False, True], ids=["exits", "is killed"])
def test_no_worker_outlives_the_first_process(
    tiny: tuple[Path, LlamaForCausalLM], tmp_path: Path, is_killed: bool
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, program, tiny[0]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        worker = int(process.stdout.readline())
        assert Path(f"/proc/{worker}").exists()
        if is_killed:
            process.kill()
        process.stdin.close()
        assert process.wait(timeout=30) == (-signal.SIGKILL if is_killed else 0)
    deadline = time.monotonic() + 10
    while _is_running(worker):
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    """Whether a process is there and not merely waited for by nobody."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
