"""What values texts: a head on the model's own states, or a second model; a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field

from ramify.core.errors import ConfigError, expected_got
from ramify.core.given import read_given

ACTIVATIONS = ("auto", "sigmoid", "identity", "softmax")


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """The reward model of an engine. Raises ConfigError.

    With `model` a second model reads the texts; its tokens may be others. It has a head of its own
    (a sequence classifier of transformers), the one in `head`, or none: then with `labels` a value
    is the chance of the first against the second. Without `model` the head in `head` reads the
    hidden states of the engine's own model, and nothing is computed twice.
    """

    model: str | None = field(
        default=None, metadata={"help": "a second model: a bundled name, a directory or a hub id"}
    )
    head: str | None = field(default=None, metadata={"help": "directory of a value head"})
    labels: tuple[str | int, str | int] | None = field(
        default=None, metadata={"help": "two tokens: a text is good, it is not"}
    )
    suffix: str = field(default="", metadata={"help": "read behind a text before it is valued"})
    activation: str = field(
        default="auto",
        metadata={"help": " | ".join(ACTIVATIONS) + "; auto: as the head says, else by its labels"},
    )
    positive_label: int | None = field(
        default=None, metadata={"help": "label of a softmax that counts; default: the last"}
    )
    kv_share: float = field(
        default=0.5, metadata={"help": "part of the KV slots that the second model gets"}
    )

    def __post_init__(self) -> None:
        if self.model is None and self.head is None:
            raise ConfigError(expected_got("reward_model", "a model, a head, or both", "neither"))
        if self.labels is not None:
            self._check_labels(self.labels)
        if self.activation not in ACTIVATIONS:
            allowed = f"one of {', '.join(ACTIVATIONS)}"
            raise ConfigError(expected_got("activation", allowed, repr(self.activation)))
        if not 0.0 < self.kv_share < 1.0:
            raise ConfigError(expected_got("kv_share", "a number in (0, 1)", repr(self.kv_share)))

    def _check_labels(self, labels: object) -> None:
        is_pair = isinstance(labels, (tuple, list)) and len(labels) == 2
        if not is_pair or not all(isinstance(label, (str, int)) for label in labels):  # type: ignore[attr-defined]
            raise ConfigError(expected_got("labels", "two tokens", repr(labels)))
        if self.model is None or self.head is not None:
            got = f"model {self.model!r}, head {self.head!r}"
            raise ConfigError(expected_got("labels", "a model without a head", got))
        object.__setattr__(self, "labels", tuple(labels))  # type: ignore[arg-type]


def reward_config(given: object) -> RewardConfig | None:
    """Read a config, a mapping of its fields, such a mapping as JSON, or the name of a model.

    Raises ConfigError.
    """
    if given is None or isinstance(given, RewardConfig):
        return given
    if isinstance(given, str) and not given.lstrip().startswith("{"):
        return RewardConfig(model=given)
    wanted = "a RewardConfig, a mapping of its fields, or a model"
    return read_given(given, RewardConfig, "reward_model", wanted=wanted)
