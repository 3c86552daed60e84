"""What `ramify bench search` may be told. Only flags live here, see options.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ramify.cli.flags import BenchEngineFlags, JsonFlag

BUNDLED_MODEL = "ramify-tiny"


@dataclass(frozen=True, kw_only=True)
class BenchSearchOptions(JsonFlag):
    """Time searches by node handles against clients that resend every path as text."""

    algorithms: tuple[str, ...] = field(
        default=("rebase", "mcts", "beam", "dvts"), metadata={"help": "searches to grow"}
    )
    width: int = field(default=16, metadata={"help": "branches that grow side by side"})
    depth: int = field(default=5, metadata={"help": "steps of an answer"})
    step_tokens: int = field(default=16, metadata={"help": "tokens of a step"})
    prompt_tokens: int = field(default=1000, metadata={"help": "tokens of the prompt, a text"})
    repeats: int = field(default=5, metadata={"help": "timed runs per form, interleaved"})
    seed: int = field(default=0, metadata={"help": "of prompts and searches"})
    output: Path | None = field(
        default=None, metadata={"help": "append the rows to this file, one JSON object a line"}
    )
    commit: str | None = field(
        default=None, metadata={"help": "commit of the sources, where they are a copy"}
    )
    engine: BenchEngineFlags = field(default_factory=lambda: BenchEngineFlags(model=BUNDLED_MODEL))
