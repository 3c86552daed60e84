"""Flags made from the config dataclasses of `core`: same names, defaults and help texts.

A flags class is its config class without the checks, so that a bad value is reported by the config
itself, in its own words, when `checked_*` builds it. Imports neither torch nor numpy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from ramify.core.config import EngineConfig
from ramify.core.params import SamplingParams, field_help
from ramify.core.structured import StructuredOutput

_SAMPLING_HELP = field_help(SamplingParams)
_ENGINE_HELP = field_help(EngineConfig)


@dataclass(frozen=True, kw_only=True)
class JsonFlag:
    """Every command has it."""

    json: bool = field(default=False, metadata={"help": "print one JSON document, nothing else"})


@dataclass(frozen=True, kw_only=True)
class EngineFlags(EngineConfig):
    """Model and engine."""

    # every command has one --seed, which reaches the requests themselves
    seed: tyro.conf.Suppress[int] = 0
    speculative_config: Annotated[str | None, tyro.conf.arg(aliases=["--speculative"])] = field(
        default=None, metadata={"help": _ENGINE_HELP["speculative_config"]}
    )
    reward_model: str | None = field(default=None, metadata={"help": _ENGINE_HELP["reward_model"]})

    def __post_init__(self) -> None:
        """Unchecked until `engine_settings` hands the values to EngineConfig."""


@dataclass(frozen=True, kw_only=True)
class BenchEngineFlags(EngineFlags):
    """Model and engine; `dummy` is a mid-sized Llama with random weights, made on the fly."""

    # a benchmark sets these itself
    method: tyro.conf.Suppress[str] = "auto"
    prefix_cache: tyro.conf.Suppress[bool] = False


@dataclass(frozen=True, kw_only=True)
class SamplingFlags(SamplingParams):
    """Sampling."""

    max_tokens: int = field(default=64, metadata={"help": _SAMPLING_HELP["max_tokens"]})
    stop: tuple[str, ...] = field(
        default=(), metadata={"help": _SAMPLING_HELP["stop"] + r"; \n and \t are understood"}
    )
    stop_token_ids: tuple[int, ...] = field(
        default=(), metadata={"help": _SAMPLING_HELP["stop_token_ids"]}
    )
    # commands that have structured output give it flags of its own
    structured: tyro.conf.Suppress[StructuredOutput | None] = None

    def __post_init__(self) -> None:
        """Unchecked until `sampling_params` hands the values to SamplingParams."""


@dataclass(frozen=True, kw_only=True)
class StructuredFlags:
    """Structured output: at most one of these."""

    json_schema: Path | None = field(
        default=None, metadata={"help": "a file with the JSON schema that the output follows"}
    )
    regex: str | None = field(
        default=None, metadata={"help": "a regex that matches the whole output (Rust's syntax)"}
    )
    choices: tuple[str, ...] = field(
        default=(), metadata={"help": "texts of which the output is one"}
    )
    grammar: Path | None = field(
        default=None, metadata={"help": "a file with the output's grammar (llguidance's Lark)"}
    )


def engine_settings(flags: EngineFlags) -> dict[str, Any]:
    """The keyword arguments of `LLM`. Raises ConfigError naming the field."""
    values = _values(flags, EngineConfig)
    EngineConfig(**values)
    return values


def sampling_params(flags: SamplingFlags) -> SamplingParams:
    """The checked parameters. Raises InputError naming the field."""
    values = _values(flags, SamplingParams)
    values["stop"] = tuple(unescape(text) for text in flags.stop)
    return SamplingParams(**values)


def unescape(text: str) -> str:
    r"""Turn the two-character sequences \n and \t, as a shell passes them, into what they mean."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _values(flags: object, config: type) -> dict[str, Any]:
    return {f.name: getattr(flags, f.name) for f in fields(config)}
