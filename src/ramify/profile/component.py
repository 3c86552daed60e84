"""One component of a preset: built, recorded on the meta device, and measured if that is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ramify.core.errors import ConfigError, expected_got
from ramify.profile.hardware import Hardware
from ramify.profile.measure import MeasureSettings, Subject, measure
from ramify.profile.operators.record import OpRecord
from ramify.profile.presets.build import build_module, fill_weights
from ramify.profile.presets.expressions import evaluate
from ramify.profile.presets.inputs import make_inputs
from ramify.profile.presets.preset import ComponentSpec
from ramify.profile.report import ComponentReport, attention_calls, group_records
from ramify.profile.summarise import failed


def preset_component(
    spec: ComponentSpec,
    names: Mapping[str, Any],
    guidance: bool,
    machine: Hardware,
    dtype: torch.dtype,
    measured: MeasureSettings | None,
) -> ComponentReport:
    """Record a pass and bound it; measure it too where there are settings.

    Args:
        names: sizes by name, see `presets.expressions.evaluate`.
        guidance: twice the batch for components that take it.
    Raises:
        ConfigError: a size that the model does not take.
    """
    module = build_module(spec.class_path, spec.config, dtype)
    doubled = 2 if guidance and spec.guided else 1
    own = {**names, **spec.sizes, "batch": doubled * evaluate("batch", names)}
    own["config"] = _config(module)

    def prepare() -> Callable[[], Any]:
        return partial(getattr(module, spec.method), **make_inputs(spec.inputs, own, module, dtype))

    subject = Subject(
        name=spec.name,
        prepare=prepare,
        modules={spec.name: module},
        records=(),
        machine=machine,
        num_frames=evaluate("frames", own) if "frames" in own else None,
    )
    subject = replace(subject, records=_records(spec, subject))
    calls = evaluate(spec.calls, own)
    report = component_report(spec.name, module, subject.records, machine, calls, own["batch"])
    return report if measured is None else _measured(report, module, subject, measured)


def _records(spec: ComponentSpec, subject: Subject) -> list[OpRecord]:
    """The operators of a pass on the meta device."""
    recorder, run = subject.recorder(), subject.prepare()
    try:
        with recorder.recording():
            run()
    except (RuntimeError, TypeError, ValueError) as error:
        wanted = f"a pass of {spec.class_path} at these sizes"
        raise ConfigError(expected_got(spec.name, wanted, error)) from error
    return recorder.records


def _measured(
    report: ComponentReport, module: torch.nn.Module, subject: Subject, settings: MeasureSettings
) -> ComponentReport:
    """The report with what passes take on the settings' device, with random weights."""
    try:
        fill_weights(module, settings.device)
    except RuntimeError as error:  # out of memory
        kept = failed(settings.device, settings.attentions[0], settings.runs[0], error)
        return replace(report, measured=(kept,))
    return replace(report, measured=measure(subject, settings))


def _config(module: Any) -> Mapping[str, Any]:
    config = getattr(module, "config", {})
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)


def component_report(
    name: str,
    module: torch.nn.Module,
    records: Sequence[OpRecord],
    machine: Hardware,
    calls: int,
    batch: int,
) -> ComponentReport:
    """What records of a pass come to on a machine, in a generation of so many passes."""
    return ComponentReport(
        name=name or "between components",
        class_name=type(module).__name__,
        num_params=sum(parameter.numel() for parameter in module.parameters()),
        calls=calls,
        batch=batch,
        groups=group_records(records, machine),
        attention=attention_calls(records, machine),
    )
