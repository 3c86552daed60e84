"""The model of a benchmark: the one named, or a dummy that is written for it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ramify.bench.dummy import describe, is_dummy, write_dummy_model
from ramify.cli.flags import EngineFlags, engine_settings


@contextmanager
def bench_model(flags: EngineFlags) -> Iterator[tuple[str, dict[str, Any]]]:
    """What to call the model, and the settings of an LLM; a dummy is there until the end.

    Raises InputError when there is no dummy of that name, ConfigError for a bad setting.
    """
    settings = {**engine_settings(flags), "prefix_cache": False}
    name = str(settings["model"])
    with model_or_dummy(name) as model:
        yield describe(name) if is_dummy(name) else name, {**settings, **model}


@contextmanager
def model_or_dummy(name: str) -> Iterator[dict[str, str]]:
    """The settings that name a model; a dummy is there until the end. Raises InputError."""
    if not is_dummy(name):
        yield {"model": name}
        return
    with tempfile.TemporaryDirectory(prefix="ramify-dummy-") as directory:
        path = write_dummy_model(Path(directory), name)
        yield {"model": str(path), "load_format": "dummy"}
