"""How drafts are made for speculative decoding: a frozen dataclass, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ramify.core.errors import ConfigError, expected_got
from ramify.core.given import read_given

SPECULATIVE_METHODS = ("ngram", "suffix", "draft_model", "medusa", "custom")

MODEL_METHODS = ("draft_model", "medusa")
"""Those that read weights; Medusa heads are looked for beside the target unless they are named."""


@dataclass(frozen=True, kw_only=True)
class SpeculativeConfig:
    """What drafts tokens ahead of the model. Names follow vLLM. Raises ConfigError."""

    method: str = field(default="ngram", metadata={"help": " | ".join(SPECULATIVE_METHODS)})
    num_speculative_tokens: int = field(
        default=16, metadata={"help": "most tokens of a branch's draft tree"}
    )
    max_depth: int | None = field(
        default=None, metadata={"help": "most tokens of a path in a draft; default: all of them"}
    )
    prompt_lookup_max: int = field(default=5, metadata={"help": "longest match looked up"})
    prompt_lookup_min: int = field(default=1, metadata={"help": "shortest match looked up"})
    model: str | None = field(default=None, metadata={"help": "the draft model, or Medusa heads"})
    width: int = field(
        default=4, metadata={"help": "tokens of a level that the draft model goes on from"}
    )
    num_slots: int = field(
        default=1 << 15, metadata={"help": "tokens the draft model's KV pool holds"}
    )
    drafter: Any = field(
        default=None, metadata={"help": "a callable or a Drafter, for method custom"}
    )
    adaptive: bool = field(
        default=True, metadata={"help": "pause drafting for branches where it does not pay"}
    )

    def __post_init__(self) -> None:
        if self.method not in SPECULATIVE_METHODS:
            allowed = f"one of {', '.join(SPECULATIVE_METHODS)}"
            raise ConfigError(expected_got("method", allowed, repr(self.method)))
        names = ("num_speculative_tokens", "prompt_lookup_max", "prompt_lookup_min", "width")
        for name in (*names, "num_slots", *(() if self.max_depth is None else ("max_depth",))):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(expected_got(name, "an int >= 1", repr(value)))
        if self.prompt_lookup_min > self.prompt_lookup_max:
            allowed = f"<= prompt_lookup_max, {self.prompt_lookup_max}"
            raise ConfigError(expected_got("prompt_lookup_min", allowed, self.prompt_lookup_min))
        is_needed, is_useless = self.method == "draft_model", self.method not in MODEL_METHODS
        if is_needed if self.model is None else is_useless:
            wanted = "a model for method draft_model, perhaps for medusa, and for no other"
            raise ConfigError(expected_got("model", wanted, repr(self.model)))
        if (self.drafter is not None) != (self.method == "custom"):
            wanted = "a callable or Drafter for method custom, and for no other"
            raise ConfigError(expected_got("drafter", wanted, repr(self.drafter)))

    @property
    def depth(self) -> int:
        """Most tokens of a path in a draft."""
        return min(self.max_depth or self.num_speculative_tokens, self.num_speculative_tokens)


def speculative_config(given: object) -> SpeculativeConfig | None:
    """Read a config, a mapping of its fields, such a mapping as JSON, or the name of a method.

    Raises ConfigError.
    """
    if given is None or isinstance(given, SpeculativeConfig):
        return given
    if given in SPECULATIVE_METHODS:
        return SpeculativeConfig(method=str(given))
    wanted = "a SpeculativeConfig or a mapping of its fields"
    return read_given(given, SpeculativeConfig, "speculative_config", wanted=wanted)
