"""What benchmarks of whole generations have in common: the model, the lengths, the peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ramify.bench.env import environment
from ramify.bench.generation import Generate, Generation, time_generation
from ramify.core.errors import InputError, expected_got
from ramify.engine.part import model_dir_of
from ramify.models import read_config

OURS = "ramify"
PEERS = ("transformers",)


class NotRun(Exception):
    """A request failed on its own, for instance out of slots."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is measured, and how often. Raises InputError for a number or a peer that cannot be.

    `settings` are those of an LLM, with a concrete device; `new_tokens` is N of a step's formula.
    """

    settings: dict[str, Any]
    model_name: str
    peers: Sequence[str] = ()
    new_tokens: int
    repeats: int = 3
    seed: int = 0
    commit: str | None = None  # of the sources, where they are a copy
    progress: Callable[[str], None] = lambda text: None
    done: Callable[[Any], None] = lambda row: None  # gets every row as soon as it is there

    def __post_init__(self) -> None:
        if self.new_tokens < 2 or self.repeats < 1:
            got = f"{self.new_tokens}, {self.repeats}"
            raise InputError(expected_got("new_tokens, repeats", "at least 2 and 1", got))
        for peer in self.peers:
            if peer not in PEERS:
                raise InputError(expected_got("compare", f"one of {', '.join(PEERS)}", repr(peer)))

    @property
    def device(self) -> torch.device:
        """Where everything runs."""
        return torch.device(self.settings["device"])

    def check_context(self, prompt_tokens: int) -> None:
        """Raise InputError unless a prompt and its new tokens fit the context."""
        config = read_config(model_dir_of(str(self.settings["model"])))
        limit = self.settings.get("max_context") or config.max_positions
        if prompt_tokens + self.new_tokens > limit:
            got = f"{prompt_tokens} + {self.new_tokens} tokens"
            raise InputError(expected_got("prompt", f"paths of at most {limit} tokens", got))

    def time(self, generate: Generate) -> Generation | str:
        """Time a generation by our engine, or say why it cannot run."""
        try:
            return time_generation(
                generate, new_tokens=self.new_tokens, repeats=self.repeats, device=self.device
            )
        except (NotRun, InputError) as error:
            return str(error)

    def row_fields(
        self, timed: Generation | str, *, prompt_tokens: int, num_rows: int, floor_ms: float
    ) -> dict[str, Any]:
        """The fields of a TimedRow but provider and dtype; `timed` may be why nothing ran."""
        ran = timed if isinstance(timed, Generation) else None
        step_ms = None if ran is None else ran.step_ms
        return {
            "model": self.model_name,
            "device": str(self.device),
            "prompt_tokens": prompt_tokens,
            "new_tokens": self.new_tokens,
            "repeats": self.repeats,
            "floor_ms": floor_ms,
            "step_ms": step_ms,
            "first_token_ms": None if ran is None else ran.first_token_ms,
            "tok_per_s": None if step_ms is None else num_rows / step_ms * 1e3,
            "pct_of_floor": None if step_ms is None else 100 * floor_ms / step_ms,
            "peak_bytes": None if ran is None else ran.peak_bytes,
            "reason": None if isinstance(timed, Generation) else timed,
            "environment": environment(self.commit),
        }

    def report(self, provider: str, what: object, timed: Generation | str) -> None:
        """Tell people a result before its row is complete."""
        times = timed
        if isinstance(timed, Generation):
            first_ms = timed.first_token_ms
            times = f"{timed.step_ms:.2f} ms a step, first tokens after {first_ms:.0f} ms"
        self.progress(f"{provider}: {what}: {times}")
