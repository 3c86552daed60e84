"""Where do time, bytes and sequence length go when a model generates?

The method of Generative AI Beyond LLMs (arXiv 2312.14385) without a GPU: run every component once
on the meta device, record its operators, and draw a roofline over them. A multiply-add is 2
FLOPs, causal attention counts dense, and a step with guidance is a pass of twice the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ramify.core.errors import InputError, expected_got
from ramify.profile.component import component_report, preset_component
from ramify.profile.hardware import Hardware, find_hardware
from ramify.profile.measure import MeasureSettings, Subject, measure, release
from ramify.profile.operators.recorder import Recorder
from ramify.profile.presets.directory import load_directory
from ramify.profile.presets.expressions import evaluate
from ramify.profile.presets.preset import ComponentSpec, Preset, load_preset
from ramify.profile.report import (
    SCHEMA_VERSION,
    ComponentReport,
    Report,
)

Inputs = Mapping[str, Any] | Sequence[Any]


def characterise(
    target: str | Path | torch.nn.Module | Callable[..., Any],
    inputs: Inputs = (),
    *,
    hardware: str = "h200",
    steps: int | None = None,
    cfg: bool | None = None,
    batch: int = 1,
    sizes: Mapping[str, int] | None = None,
    dtype: torch.dtype = torch.bfloat16,
    only: Sequence[str] | None = None,
    measured: MeasureSettings | None = None,
) -> Report:
    """Record the operators of a model and bound their times.

    Args:
        target: the name of a preset; a directory with a config of transformers or diffusers; a
            module, on any device, the meta device included; or a pipeline object whose
            `components` are modules, which is run as it is.
        inputs: arguments of a module or pipeline, by position or by name.
        hardware: the machine of the roofline, see `profile.hardware`.
        steps, cfg, batch, sizes: of a preset or directory, instead of its own: denoising steps,
            classifier-free guidance, samples at once, and sizes by name.
        dtype: that a preset or directory is built in.
        only: names of the components to run; default all.
        measured: also run everything for real, with random weights, and time it; a module or
            pipeline must be on the settings' device. Default: only bounds.
    Raises:
        InputError: an unknown preset, machine, component or size, or a library that is missing.
        ConfigError: a config or size that the model does not take.
    """
    machine = find_hardware(hardware)
    if isinstance(target, (str, Path)):
        preset = _preset(target)
        changed = {"steps": steps, "guidance": cfg}
        settings = {key: value for key, value in changed.items() if value is not None}
        return _of_preset(preset, machine, settings, batch, sizes or {}, dtype, only, measured)
    return _of_object(target, inputs, machine, measured)


def _preset(target: str | Path) -> Preset:
    if isinstance(target, Path) or Path(target).is_dir():
        return load_directory(Path(target))
    return load_preset(target)


def _of_preset(
    preset: Preset,
    machine: Hardware,
    settings: Mapping[str, Any],
    batch: int,
    sizes: Mapping[str, int],
    dtype: torch.dtype,
    only: Sequence[str] | None,
    measured: MeasureSettings | None,
) -> Report:
    steps, guidance = settings.get("steps", preset.steps), settings.get("guidance", preset.guidance)
    if min([steps, batch, *sizes.values()]) < 1:
        raise InputError(
            expected_got("steps, batch and sizes", "at least 1", (steps, batch, sizes))
        )
    names = _merged(preset, sizes) | {"batch": batch, "steps": steps}
    parts = [spec for spec in preset.components if only is None or spec.name in only]
    if not parts:
        wanted = "some of " + ", ".join(spec.name for spec in preset.components)
        raise InputError(expected_got("components", wanted, only))
    return Report(
        schema_version=SCHEMA_VERSION,
        name=preset.name,
        title=preset.title,
        stands_for=preset.stands_for,
        source=preset.source,
        sizes={name: evaluate(name, names) for name in preset.sizes},
        batch=batch,
        steps=steps,
        guidance=guidance,
        hardware=machine,
        components=tuple(_components(parts, names, guidance, machine, dtype, measured)),
    )


def _components(
    parts: Sequence[ComponentSpec],
    names: Mapping[str, Any],
    guidance: bool,
    machine: Hardware,
    dtype: torch.dtype,
    measured: MeasureSettings | None,
) -> Iterator[ComponentReport]:
    """One after another, the weights of one freed before the next has any."""
    for spec in parts:
        yield preset_component(spec, names, guidance, machine, dtype, measured)
        if measured is not None:
            release(measured.device)


def _merged(preset: Preset, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The preset's sizes with the user's; `side` is height and width."""
    given = dict(sizes)
    if (side := given.pop("side", None)) is not None:
        given |= {"height": side, "width": side}
    if unknown := set(given) - set(preset.sizes):
        wanted = "one of " + ", ".join(preset.sizes)
        raise InputError(expected_got("size", wanted, ", ".join(sorted(unknown))))
    return {**preset.sizes, **given}


def _of_object(
    target: Any, inputs: Inputs, machine: Hardware, measured: MeasureSettings | None
) -> Report:
    """A module, or a pipeline: what its call runs goes to the component that runs it."""
    modules = _modules(target)
    recorder = Recorder(modules)
    run = partial(target, **inputs) if isinstance(inputs, Mapping) else partial(target, *inputs)
    with recorder.recording():
        run()
    parts = [
        component_report(name, module, records, machine, 1, 1)
        for name, module in [*modules.items(), ("", torch.nn.Module())]
        if (records := recorder.within(name))
    ]
    name = type(target).__name__
    subject = Subject(
        name=name,
        prepare=lambda: run,
        modules=modules,
        records=recorder.records,
        machine=machine,
    )
    return Report(
        schema_version=SCHEMA_VERSION,
        name=name,
        title=name,
        stands_for="",
        source="an object in memory",
        sizes={},
        batch=1,
        steps=1,
        guidance=False,
        hardware=machine,
        components=tuple(parts),
        measured=() if measured is None else measure(subject, measured),
    )


def _modules(target: Any) -> dict[str, torch.nn.Module]:
    if isinstance(target, torch.nn.Module):
        return {type(target).__name__: target}
    parts = getattr(target, "components", {})
    modules = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    if not callable(target) or not modules:
        wanted = "a preset, a directory, a module or a pipeline with components"
        raise InputError(expected_got("target", wanted, type(target).__name__))
    return modules
