"""What a user may ask of generation: sampling and beam-search parameters, checked when made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

from ramify.core.errors import InputError, expected_got
from ramify.core.structured import StructuredOutput, check_structured

MAX_SEED = 2**63


def _number(name: str, value: object, low: float, high: float = math.inf) -> None:
    """Check for a finite real number in [low, high]; NaN, inf, bool and strings are refused."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type, operator]
        bound = f">= {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        raise InputError(expected_got(name, f"a finite number {bound}", repr(value)))


def _integer(name: str, value: object, low: int, high: int | None = None) -> None:
    """Check for an int in [low, high]; bool is refused."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if not is_int or value < low or (high is not None and value > high):  # type: ignore[operator]
        bound = f">= {low}" if high is None else f"in [{low}, {high}]"
        raise InputError(expected_got(name, f"an int {bound}", repr(value)))


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InputError(expected_got(name, "True or False", repr(value)))


def _strings(name: str, value: object) -> tuple[str, ...]:
    """Read a stop specification: None, a string, or a sequence of non-empty strings."""
    if value is None:
        return ()
    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not all(isinstance(s, str) and s for s in items):
        raise InputError(
            expected_got(name, "a non-empty string or a list of non-empty strings", repr(value))
        )
    return tuple(items)


def _token_ids(name: str, value: object) -> tuple[int, ...]:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_list:
        raise InputError(expected_got(name, "a list of token ids", repr(value)))
    for token in value:  # type: ignore[attr-defined]
        _integer(f"{name}[...]", token, 0)
    return tuple(value)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How one branch picks its tokens and when it ends. Names follow vLLM.

    Raises:
        InputError: a value is out of range, not finite, or of the wrong type; the field is named.
    """

    n: int = field(default=1, metadata={"help": "branches grown from the same prompt"})
    temperature: float = field(default=1.0, metadata={"help": "0 picks the most probable token"})
    top_k: int = field(default=0, metadata={"help": "keep the k most probable tokens; 0 keeps all"})
    top_p: float = field(default=1.0, metadata={"help": "keep the smallest set with this mass"})
    min_p: float = field(
        default=0.0, metadata={"help": "drop tokens below this fraction of the top probability"}
    )
    repetition_penalty: float = field(
        default=1.0,
        metadata={"help": "divide the logits of tokens seen in prompt or output; 1 = off"},
    )
    presence_penalty: float = field(
        default=0.0, metadata={"help": "subtracted once from the logit of each generated token"}
    )
    frequency_penalty: float = field(
        default=0.0,
        metadata={"help": "subtracted per occurrence from the logit of generated tokens"},
    )
    logit_bias: Mapping[int, float] | None = field(
        default=None, metadata={"help": "token id to a number added to its logit"}
    )
    seed: int | None = field(
        default=None, metadata={"help": "root seed; a branch's seed follows from it and its path"}
    )
    max_tokens: int = field(default=16, metadata={"help": "tokens a branch may generate"})
    min_tokens: int = field(
        default=0, metadata={"help": "no stop of any kind before this many tokens"}
    )
    stop: str | Sequence[str] | None = field(
        default=None, metadata={"help": "strings that end a branch, also across token boundaries"}
    )
    stop_token_ids: Sequence[int] = field(default=(), metadata={"help": "tokens that end a branch"})
    include_stop_str_in_output: bool = field(
        default=False, metadata={"help": "keep the stop string in the text"}
    )
    ignore_eos: bool = field(default=False, metadata={"help": "go on past the end-of-text token"})
    logprobs: int | None = field(
        default=None, metadata={"help": "report this many most probable tokens at each position"}
    )
    prompt_logprobs: int | None = field(
        default=None, metadata={"help": "the same for the positions of the prompt"}
    )
    skip_special_tokens: bool = field(
        default=True, metadata={"help": "leave special tokens out of the text"}
    )
    structured: StructuredOutput | None = field(
        default=None, metadata={"help": "JSON schema, regex, choices or grammar of the output"}
    )

    def __post_init__(self) -> None:
        _integer("n", self.n, 1)
        _number("temperature", self.temperature, 0.0)
        _integer("top_k", self.top_k, 0)
        _number("top_p", self.top_p, 0.0, 1.0)
        if self.top_p == 0.0:
            raise InputError(expected_got("top_p", "a number in (0, 1]", "0.0"))
        _number("min_p", self.min_p, 0.0, 1.0)
        _number("repetition_penalty", self.repetition_penalty, 0.0)
        if self.repetition_penalty == 0.0:
            raise InputError(expected_got("repetition_penalty", "a number > 0", "0.0"))
        _number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _integer("max_tokens", self.max_tokens, 1)
        _integer("min_tokens", self.min_tokens, 0, self.max_tokens)
        if self.seed is not None:
            _integer("seed", self.seed, 0, MAX_SEED - 1)
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                _integer(name, getattr(self, name), 0)
        for name in ("include_stop_str_in_output", "ignore_eos", "skip_special_tokens"):
            _flag(name, getattr(self, name))
        object.__setattr__(self, "stop", _strings("stop", self.stop))
        object.__setattr__(
            self, "stop_token_ids", _token_ids("stop_token_ids", self.stop_token_ids)
        )
        self._check_bias()
        check_structured(self.structured)

    def _check_bias(self) -> None:
        if self.logit_bias is None:
            return
        if not isinstance(self.logit_bias, Mapping):
            raise InputError(expected_got("logit_bias", "a mapping", repr(self.logit_bias)))
        for token, bias in self.logit_bias.items():
            _integer("logit_bias key", token, 0)
            _number(f"logit_bias[{token}]", bias, -math.inf)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings as a tuple, whatever form they were given in."""
        return _strings("stop", self.stop)

    @property
    def penalises(self) -> bool:
        """Whether logits depend on the tokens already on the path."""
        return (
            self.repetition_penalty != 1.0
            or self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
        )

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise InputError when a token id or a count does not fit the model's vocabulary."""
        for token in (*self.stop_token_ids, *(self.logit_bias or ())):
            if token >= vocab_size:
                raise InputError(expected_got("token id", f"< {vocab_size} (vocabulary)", token))
        for name in ("logprobs", "prompt_logprobs"):
            count = getattr(self, name)
            if count is not None and count > vocab_size:
                raise InputError(expected_got(name, f"<= {vocab_size} (vocabulary)", count))


@dataclass(frozen=True, kw_only=True)
class BeamSearchParams:
    """Beam search with the semantics of transformers' `generate(num_beams=...)`.

    A finished beam scores cumulative log-probability / length ** length_penalty, the length being
    its generated tokens (end-of-text included). With `structured`, log-probabilities stay those of
    the model and tokens that the grammar refuses are left out; the end of text is a token that
    `max_tokens` counts. Beams that `max_tokens` cuts off rank behind all complete ones and say
    "length". Raises InputError naming the field.
    """

    beam_width: int = field(default=4, metadata={"help": "beams kept at each step"})
    max_tokens: int = field(default=16, metadata={"help": "tokens a beam may generate"})
    length_penalty: float = field(
        default=1.0, metadata={"help": "exponent of the length in a score"}
    )
    early_stopping: bool | Literal["never"] = field(
        default=False,
        metadata={"help": "True: stop at beam_width finished; False: heuristic; never: exact"},
    )
    num_return: int | None = field(default=None, metadata={"help": "beams returned; default all"})
    ignore_eos: bool = field(default=False, metadata={"help": "treat end-of-text as any token"})
    skip_special_tokens: bool = field(default=True, metadata={"help": "clean special tokens off"})
    structured: StructuredOutput | None = field(
        default=None, metadata={"help": "JSON schema, regex, choices or grammar of every beam"}
    )

    def __post_init__(self) -> None:
        _integer("beam_width", self.beam_width, 1)
        _integer("max_tokens", self.max_tokens, 1)
        _number("length_penalty", self.length_penalty, -math.inf)
        if self.early_stopping not in (True, False, "never"):
            raise InputError(
                expected_got("early_stopping", "True, False or 'never'", repr(self.early_stopping))
            )
        if self.num_return is not None:
            _integer("num_return", self.num_return, 1, self.beam_width)
        _flag("ignore_eos", self.ignore_eos)
        _flag("skip_special_tokens", self.skip_special_tokens)
        check_structured(self.structured)
        if self.structured is not None and self.ignore_eos:
            wanted = "False with structured, whose beams end with the end of text"
            raise InputError(expected_got("ignore_eos", wanted, True))


def field_help(cls: type) -> dict[str, str]:
    """Field name to its help text, for command-line flags built from these dataclasses."""
    return {f.name: str(f.metadata.get("help", "")) for f in fields(cls)}
