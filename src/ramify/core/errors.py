"""Every error a user of Ramify can meet.

    RamifyError
    ├── InputError (also ValueError)     an argument is wrong; nothing was changed
    ├── ConfigError                      a model directory or a setting is wrong; names the field
    ├── OutOfSlots                       the KV pool cannot hold what was asked, even after eviction
    ├── BackendUnavailable               the chosen attention backend cannot run here; says why
    ├── RequestAborted                   the request was aborted before it finished
    ├── ScorerError                      a scorer's endpoint or model gave no usable answer
    ├── WorkerError                      a process that shares the model is gone; so is the engine
    └── IntegrityError                   an internal invariant broke; always a bug in Ramify

Messages state both sides: what was expected and what came. `expected_got` writes them.
"""

from __future__ import annotations


class RamifyError(Exception):
    """Base of every error raised on purpose by Ramify."""


class InputError(RamifyError, ValueError):
    """An argument is malformed or out of range. State is unchanged."""


class ConfigError(RamifyError):
    """A model directory, a weight file or a setting is wrong. The message names the field."""


class OutOfSlots(RamifyError):
    """The KV pool has fewer free slots than asked, counting everything that may be evicted."""

    def __init__(self, needed: int, available: int, what: str = "slots") -> None:
        super().__init__(f"{what}: expected at most {available} slots to be needed, got {needed}")
        self.needed = needed
        self.available = available


class BackendUnavailable(RamifyError):
    """An attention backend was asked for by name and cannot run here."""

    def __init__(self, backend: str, reason: str) -> None:
        super().__init__(f"attention backend {backend!r} is unavailable: {reason}")
        self.backend = backend
        self.reason = reason


class RequestAborted(RamifyError):
    """The request ended by `abort` before it finished."""


class ScorerError(RamifyError):
    """An endpoint or a reward model did not answer, or not with the scores asked for."""


class WorkerError(RamifyError):
    """A process that holds a part of the model failed or fell out of step; the engine is over."""


class IntegrityError(RamifyError):
    """An internal invariant does not hold. This is a bug in Ramify; please report it."""


def expected_got(name: str, expected: object, got: object) -> str:
    """Spell both sides of a mismatch: `temperature: expected a number >= 0, got -1.0`."""
    return f"{name}: expected {expected}, got {got}"
