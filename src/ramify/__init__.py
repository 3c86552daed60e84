"""Ramify: an LLM inference engine for generation that branches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ramify.core.config import EngineConfig
from ramify.core.errors import (
    BackendUnavailable,
    ConfigError,
    InputError,
    IntegrityError,
    OutOfSlots,
    RamifyError,
    RequestAborted,
    WorkerError,
)
from ramify.core.outputs import (
    CompletionOutput,
    RequestOutput,
    ScoreOutput,
    SearchResult,
    TokenLogprob,
    Usage,
)
from ramify.core.params import BeamSearchParams, SamplingParams
from ramify.core.structured import StructuredOutput

if TYPE_CHECKING:
    from ramify.engine import LLM, NodeHandle
    from ramify.export import ExportedTree, load_tree, save_tree

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "BackendUnavailable",
    "BeamSearchParams",
    "CompletionOutput",
    "ConfigError",
    "EngineConfig",
    "ExportedTree",
    "InputError",
    "IntegrityError",
    "NodeHandle",
    "OutOfSlots",
    "RamifyError",
    "RequestAborted",
    "RequestOutput",
    "SamplingParams",
    "ScoreOutput",
    "SearchResult",
    "StructuredOutput",
    "TokenLogprob",
    "Usage",
    "WorkerError",
    "__version__",
    "load_tree",
    "save_tree",
]


def __getattr__(name: str) -> object:
    """Load the engine, and torch with it, only when it is asked for."""
    if name in ("LLM", "NodeHandle"):
        import ramify.engine

        return getattr(ramify.engine, name)
    if name in ("ExportedTree", "load_tree", "save_tree"):
        import ramify.export

        return getattr(ramify.export, name)
    raise AttributeError(f"module 'ramify' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
