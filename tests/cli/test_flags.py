"""Flags are the config dataclasses': same names, same defaults, no checks of their own."""

from __future__ import annotations

from dataclasses import fields

import pytest

from ramify import EngineConfig, InputError, SamplingParams
from ramify.cli.flags import (
    EngineFlags,
    SamplingFlags,
    StructuredFlags,
    engine_settings,
    sampling_params,
)


def test_defaults_are_the_configs():
    assert EngineConfig(**engine_settings(EngineFlags())) == EngineConfig()
    assert sampling_params(SamplingFlags(max_tokens=16)) == SamplingParams()


def test_every_flag_has_a_help_text():
    for flags in (EngineFlags, SamplingFlags, StructuredFlags):
        for flag in fields(flags):
            assert flag.metadata.get("help") or flag.name in ("seed", "structured")


def test_bad_values_are_refused_by_the_params():
    flags = SamplingFlags(temperature=float("nan"))
    with pytest.raises(InputError, match="temperature: expected a finite number >= 0"):
        sampling_params(flags)


def test_stop_strings_know_newlines():
    assert sampling_params(SamplingFlags(stop=(r"\n\n", "END"))).stop == ("\n\n", "END")
