"""`ramify info`: what is installed, what can run here and why it was chosen, facts of a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from ramify import LLM
from ramify.attention import TreeAttention
from ramify.attention.backends.select import BACKENDS, PLANNED
from ramify.attention.plan import METHODS
from ramify.bench.env import environment
from ramify.cli.bench_model import model_or_dummy
from ramify.cli.options import InfoOptions
from ramify.cli.output import Output
from ramify.core.errors import BackendUnavailable, InputError, expected_got
from ramify.engine.part import model_dir_of
from ramify.models import read_config
from ramify.zoo import MODELS, PROBLEMS


def execute(options: InfoOptions, out: Output) -> int:
    """Print the report.

    Raises ConfigError for a bad model, BackendUnavailable for a backend, InputError where there is
    no model to load.
    """
    if options.start and options.model is None:
        raise InputError(expected_got("start", "a --model to load", "none"))
    document: dict[str, Any] = {
        "environment": asdict(environment()),
        "devices": _devices(),
        "attention": _attention(options.backend),
        "bundled_models": list(MODELS),
        "bundled_problems": sorted(PROBLEMS),
    }
    if options.model is not None:
        with model_or_dummy(options.model) as settings:
            document["model"] = _model(options.model, model_dir_of(settings["model"]))
            if options.start:
                document["start"] = _start(settings, options.backend)
    out.say(_table(document))
    out.document(document)
    return 0


def _devices() -> dict[str, str]:
    devices = {"cpu": f"{torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        gib = torch.cuda.get_device_properties(index).total_memory / 2**30
        devices[f"cuda:{index}"] = f"{name}, {gib:.0f} GiB"
    return devices


def _attention(asked: str) -> dict[str, Any]:
    """Backends with what keeps them from running, and the one chosen."""
    chosen = _open(asked)
    backends = {}
    for name in (*BACKENDS, *PLANNED):
        try:
            _open(name)
            backends[name] = "available"
        except BackendUnavailable as error:
            backends[name] = f"unavailable: {error.reason}"
    return {
        "methods": list(METHODS),
        "backends": backends,
        "chosen": chosen.backend,
        "reason": chosen.backend_reason,
    }


def _open(backend: str) -> TreeAttention:
    return TreeAttention(1, 1, 64, backend=backend)


def _model(name: str, path: Path) -> dict[str, Any]:
    """What config.json and the weight files say; the weights are not loaded."""
    config = read_config(path)
    weights = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    per_token = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    return {
        "name": name,
        "architecture": config.architecture,
        "layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "heads": f"{config.num_q_heads}/{config.num_kv_heads} x {config.head_dim}",
        "vocabulary": config.vocab_size,
        "max_positions": config.max_positions,
        "stored_dtype": config.dtype,
        "weight_bytes": weights,
        "kv_bytes_per_token_float32": 4 * per_token,
    }


def _start(settings: dict[str, Any], backend: str) -> dict[str, Any]:
    """What loading the model and opening its pool took: seconds by phase, bytes by use."""
    startup = LLM(**settings, backend=backend).startup
    rounded = {
        field: round(value, 3) if isinstance(value, float) else value
        for field, value in asdict(startup).items()
    }
    return {"total_s": round(startup.total_s, 3), **rounded}


def _table(document: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for section, content in document.items():
        if isinstance(content, list):
            table.add_row(section.replace("_", " "), ", ".join(content))
            continue
        table.add_row(section.replace("_", " "), "")
        for name, value in content.items():
            for label, text in _lines(name, value):
                table.add_row(f"  {label.replace('_', ' ')}", text)
    return table


def _lines(name: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [
            (name if index == 0 else "", f"{k} {v}") for index, (k, v) in enumerate(value.items())
        ]
    if isinstance(value, list):
        return [(name, ", ".join(map(str, value)))]
    return [(name, "none" if value is None else str(value))]
