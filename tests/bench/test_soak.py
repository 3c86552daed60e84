"""Soak runs: they pass on a sound engine, cover what they claim, and notice what is broken."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ramify import LLM
from ramify.bench.soak import Soak, SoakReport, soak
from ramify.core.errors import InputError
from ramify.testing.models import save_byte_tokenizer, save_tiny_llama

Wrong = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bytes")
    save_tiny_llama(path, vocab_size=256, eos_token_id=7, seed=1)
    save_byte_tokenizer(path)
    return path


def make_llm(model: Path, **settings: Any) -> LLM:
    """An engine under pressure."""
    defaults = {"num_slots": 220, "max_rows": 48, "device": "cpu", "dtype": "float32"}
    return LLM(str(model), **{**defaults, **settings})


def run(llm: LLM, **more: Any) -> SoakReport:
    return soak(Soak(llm=llm, model_name="tiny", minutes=3.0, **more))


@pytest.mark.parametrize("run_ahead", [False, True], ids=["waiting", "ahead"])
def test_a_sound_engine_passes(model: Path, run_ahead: bool) -> None:
    report = run(make_llm(model, run_ahead=run_ahead), rounds=4, seed=1)
    assert report.violation is None, report.violation
    assert {"stream", "beam", "tot", "tree by hand"} <= report.requests.keys()
    assert {"RequestAborted", "OutOfSlots", "InputError"} <= report.errors.keys()
    assert report.preemptions > 0 and report.aborts > 0
    assert report.rechecked_branches > 10 and report.rechecked_beams > 0
    assert 0.0 < report.worst_logprob_difference < 1e-4


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("policy", ["fcfs", "prefill_first"])
@pytest.mark.parametrize("run_ahead", [False, True], ids=["waiting", "ahead"])
def test_a_minute_of_load(model: Path, run_ahead: bool, policy: str) -> None:
    llm = make_llm(model, run_ahead=run_ahead, policy=policy, method="flatten")
    report = soak(Soak(llm=llm, model_name="tiny", minutes=1.0, seed=7))
    assert report.violation is None, report.violation
    assert report.rounds > 5


# ── a soak that cannot fail says nothing ─────────────────────────────────────────────────────────
def shifted(logits: torch.Tensor) -> torch.Tensor:
    """In company, the best token of every row is another."""
    return logits.roll(1, dims=1) if len(logits) > 1 else logits


def flattened(logits: torch.Tensor) -> torch.Tensor:
    """In company all distributions are a little flatter, which changes few tokens."""
    return logits * 0.99 if len(logits) > 1 else logits


def not_a_number(logits: torch.Tensor) -> torch.Tensor:
    return logits * math.nan


@pytest.mark.parametrize("wrong", [shifted, flattened, not_a_number])
def test_wrong_logits_are_noticed(
    model: Path, monkeypatch: pytest.MonkeyPatch, wrong: Wrong
) -> None:
    llm = make_llm(model)
    right = llm.engine.executor.run
    monkeypatch.setattr(llm.engine.executor, "run", lambda batch: wrong(right(batch)))
    report = run(llm, rounds=6, seed=1)
    assert report.violation is not None and "IntegrityError" in report.violation
    assert report.violation_round is not None and report.violation_step is not None


def test_a_leak_is_noticed(model: Path) -> None:
    llm = make_llm(model)
    llm.engine.cache.open([1, 2, 3])
    report = run(llm, rounds=2)
    assert report.violation is not None and "live paths" in report.violation
    assert report.violation_round == 0


def test_an_error_that_nobody_expects_is_noticed(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = make_llm(model)
    right, calls = llm.engine.executor.run, iter(range(40))

    def fails_late(batch: Any) -> torch.Tensor:
        if next(calls, None) is None:
            raise RuntimeError("device is gone")
        return right(batch)

    monkeypatch.setattr(llm.engine.executor, "run", fails_late)
    report = run(llm, rounds=6)
    assert report.violation is not None and "device is gone" in report.violation


def test_an_engine_that_stands_still_is_interrupted(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = make_llm(model)
    monkeypatch.setattr("ramify.bench.soak.run.PATIENCE_S", 1.0)
    monkeypatch.setattr(llm.engine, "step", lambda *, is_watched=False: False)
    # as in a process that a shell started in the background
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        report = run(llm, rounds=1)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "the handler is put back"
    finally:
        signal.signal(signal.SIGINT, handler)
    assert report.violation is not None and "no step for 1 s" in report.violation


def test_an_engine_without_end_is_interrupted(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are counted, and nothing comes of them."""
    llm = make_llm(model)

    def step(*, is_watched: bool = False) -> bool:
        llm.engine.num_steps += 1
        return True

    monkeypatch.setattr(llm.engine, "step", step)
    monkeypatch.setattr("ramify.bench.soak.run.MOST_STEPS", 1000)
    report = run(llm, rounds=1)
    assert report.violation is not None and "no end of steps" in report.violation


def test_a_round_can_be_repeated(model: Path) -> None:
    """The same requests from its number alone, whatever ran before."""
    whole = run(make_llm(model), rounds=3, seed=5)
    parts = [run(make_llm(model), rounds=1, first_round=i, seed=5) for i in range(3)]
    for kind, count in whole.requests.items():
        assert count == sum(part.requests.get(kind, 0) for part in parts)


@pytest.mark.parametrize(
    ("field", "value"), [("minutes", 0), ("seed", -1), ("rounds", 0), ("first_round", -1)]
)
def test_bad_runs(model: Path, field: str, value: int) -> None:
    with pytest.raises(InputError, match=field):
        Soak(llm=make_llm(model), model_name="tiny", **{field: value})


def test_a_pool_must_have_room_for_a_load(model: Path) -> None:
    with pytest.raises(InputError, match="pool and context"):
        Soak(llm=make_llm(model, num_slots=40), model_name="tiny")
