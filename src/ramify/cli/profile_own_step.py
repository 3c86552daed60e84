"""Ramify's own decode step in `ramify profile suite`: bounds, and steps of a dummy model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ramify import LLM
from ramify.bench.dummy import DUMMY, describe, write_dummy_model
from ramify.core.errors import RamifyError
from ramify.models.config import read_config
from ramify.profile.hardware import find_hardware
from ramify.profile.measure import MeasureSettings, release
from ramify.profile.measured import Measured
from ramify.profile.own_step import NEW_TOKENS, measured_step, step_report
from ramify.profile.report import Report
from ramify.profile.shape import DecodeShape
from ramify.profile.step import StepProfile, profile_step
from ramify.profile.summarise import failed

LARGE, LARGE_SHAPE = f"{DUMMY}:llama-3.1-8b", DecodeShape(prompt_tokens=4000, branches=16, trees=1)
SMALL, SMALL_SHAPE = DUMMY, DecodeShape(prompt_tokens=256, branches=8, trees=1)
"""What a CPU measures; bounds alone are always those of the large one."""

TRACED_STEPS = 8
EXTRA_SLOTS = 4096  # reserves of growing branches, and the steps around those that count


def own_step(hardware: str, settings: MeasureSettings | None) -> Report:
    """The report of a step, with a measurement where there are settings."""
    is_small = settings is not None and not settings.on_gpu
    name, shape = (SMALL, SMALL_SHAPE) if is_small else (LARGE, LARGE_SHAPE)
    with TemporaryDirectory(prefix="ramify-step-") as folder:
        path = write_dummy_model(Path(folder), name)
        report = step_report(read_config(path), describe(name), shape, find_hardware(hardware))
        if settings is None:
            return report
        measured = _measured(path, shape, settings)
    (part,) = report.components
    return replace(report, components=(replace(part, measured=(measured,)),))


def _measured(path: Path, shape: DecodeShape, settings: MeasureSettings) -> Measured:
    try:
        return measured_step(list(_profiles(path, shape, settings)), settings.device)
    except (RamifyError, RuntimeError) as error:  # also out of memory
        run = "graphs" if settings.on_gpu else "eager"
        return failed(settings.device, "flash", run, error)
    finally:
        release(settings.device)


def _profiles(path: Path, shape: DecodeShape, settings: MeasureSettings) -> Iterator[StepProfile]:
    slots = shape.unique_tokens(2 * NEW_TOKENS) + EXTRA_SLOTS
    options = {"load_format": "dummy", "num_slots": slots, "prefix_cache": False}
    with LLM(str(path), device=settings.device, **options) as llm:
        for _ in range(settings.repeats):
            yield profile_step(
                llm,
                shape,
                path=path / "trace.json",
                num_timed=NEW_TOKENS,
                num_traced=TRACED_STEPS,
            )
