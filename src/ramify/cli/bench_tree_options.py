"""What `ramify bench search` and `speculation` may be told. Only flags live here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ramify.cli.flags import BenchEngineFlags, JsonFlag
from ramify.core.speculative import SPECULATIVE_METHODS

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


@dataclass(frozen=True, kw_only=True)
class BenchSpeculationOptions(JsonFlag):
    """Check and time every drafter on prompts; of a dummy model, replayed acceptance and steps."""

    drafters: tuple[str, ...] = field(
        default=SPECULATIVE_METHODS, metadata={"help": "methods of speculative_config"}
    )
    draft_model: str | None = field(
        default=None, metadata={"help": "drafts for draft_model; default: the model itself"}
    )
    prompts: int = field(default=200, metadata={"help": "held-out prompts of the bundled tasks"})
    together: int = field(default=8, metadata={"help": "prompts that decode at once"})
    draft_tokens: int = field(default=16, metadata={"help": "most tokens of a draft on prompts"})
    adaptive: bool = field(
        default=False, metadata={"help": "on prompts, pause drafting where it does not pay"}
    )
    new_tokens: int | None = field(
        default=None, metadata={"help": "tokens to generate (default: 64, with recordings 300)"}
    )
    workloads: Path | None = field(
        default=None, metadata={"help": "folder of DeFT's recorded drafts, for a dummy model"}
    )
    prompt_tokens: int = field(default=1000, metadata={"help": "prompt of recorded drafts"})
    draft_rows: tuple[int, ...] = field(
        default=(64, 128, 256), metadata={"help": "rows of the draft trees that steps verify"}
    )
    contexts: tuple[int, ...] = field(
        default=(1024, 4096, 16384), metadata={"help": "tokens before them"}
    )
    steps: int = field(default=24, metadata={"help": "timed steps of each"})
    seed: int = field(default=0, metadata={"help": "of prompts and draws"})
    output: Path | None = field(
        default=None, metadata={"help": "append the rows to this file, one JSON object a line"}
    )
    commit: str | None = field(
        default=None, metadata={"help": "commit of the sources, where they are a copy"}
    )
    engine: BenchEngineFlags = field(default_factory=lambda: BenchEngineFlags(model=BUNDLED_MODEL))
