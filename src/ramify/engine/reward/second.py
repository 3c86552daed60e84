"""A second model that values texts: an engine of its own, stepped in the loop of the first.

Every question is a request there, so it meets what all requests meet: the policy, a prefix cache
that knows the path's earlier part from when its parent was valued, chunks, preemption. While it is
computed, the first model goes on with whatever does not wait for the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ramify.core.errors import ConfigError, InputError, expected_got
from ramify.core.reward import RewardConfig
from ramify.engine.codec import Codec
from ramify.engine.live import LiveTrees
from ramify.engine.request import Force, Request
from ramify.engine.reward.valuer import answer, refuse
from ramify.search.controller import Action, Event, Failed, Finish, Score, Scored, Started, Tokens
from ramify.search.scorer import chance_of_first
from ramify.search.tree import TreeView

if TYPE_CHECKING:
    from ramify.engine.engine import Engine


class Question:
    """Asks about a whole text and nothing else; the text stays in the prefix cache."""

    def __init__(self, config: RewardConfig) -> None:
        self._config = config
        self.value: float | None = None
        self.failure = "no answer"

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        """Ask, then finish."""
        (event,) = events
        if isinstance(event, Started):
            labels, suffix = self._config.labels or (), self._config.suffix or ()
            return [Score(node=event.root, suffix=suffix, labels=labels, reward=not labels)]
        if isinstance(event, Scored):
            self.value = event.value
            if self._config.labels is not None:
                self.value = chance_of_first(event.logprobs)
        elif isinstance(event, Failed):
            self.failure = event.reason
        return [Finish()]


@dataclass(frozen=True, slots=True)
class _Asked:
    task: Force
    question: Question
    inner: Request  # the question, in the second engine


class SecondModel:
    """See Valuer.

    Args:
        engine: of the second model; with a head, if values come from one.
        codec: of the first model.
    Raises:
        ConfigError: one of the models has no tokenizer, and the other does not read its tokens.
    """

    def __init__(self, engine: Engine, config: RewardConfig, codec: Codec) -> None:
        self.engine = engine
        self._config = config
        self._codec = codec
        self._asked: list[_Asked] = []
        self._has_same_tokens = _have_same_tokens(codec, engine.live.codec)
        if not self._has_same_tokens and None in (codec.tokenizer, engine.live.codec.tokenizer):
            wanted = "a tokenizer, as has the other model, or the same vocabulary"
            raise ConfigError(expected_got(f"reward_model {config.model!r}", wanted, "neither"))

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._asked) or self.engine.has_work

    def ask(self, live: LiveTrees, task: Force) -> None:
        """See Valuer."""
        assert isinstance(task.action, Score), "a value is asked for by a Score"
        question = Question(self._config)
        try:
            tokens = self._tokens(task.request, task.node, task.action.suffix)
            inner = self.engine.submit(question, tokens)
        except InputError as error:  # too long for the second model, or of other tokens
            refuse(task, str(error))
            return
        # the first model has no part in it, but its request must not end before
        task.request.tasks[task.id] = task
        self._asked.append(_Asked(task, question, inner))

    def step(self) -> list[Request]:
        """Run one step of the second model; returns the requests of the first that have news."""
        for asked in self._asked:
            if asked.task.id not in asked.task.request.tasks:
                self.engine.abort(asked.inner)
        self.engine.step()
        over = [asked for asked in self._asked if asked.inner.is_done]
        self._asked = [asked for asked in self._asked if not asked.inner.is_done]
        return [asked.task.request for asked in over if self._hear(asked)]

    def _hear(self, asked: _Asked) -> bool:
        """Pass an answer on; returns whether somebody still wants it."""
        task, request, cost = asked.task, asked.task.request, asked.inner.usage
        request.usage.reward_tokens += cost.computed_tokens
        request.usage.reward_kv_bytes_read += cost.kv_bytes_read
        if request.tasks.pop(task.id, None) is None:
            return False
        if asked.question.value is not None:
            answer(task, asked.question.value)
        else:
            refuse(task, str(asked.inner.error or asked.question.failure))
        return True

    def _tokens(self, request: Request, node: int, suffix: Tokens) -> list[int]:
        """A path in the second model's tokens: the same ones, or those of its text."""
        tree, codec = request.tree, self._codec
        if self._has_same_tokens:
            path = [*request.prompt_ids, *tree.completion_ids(node), *codec.encode(suffix)]
            return self.engine.live.codec.encode_prompt(path)
        prompt = request.prompt or codec.decode(request.prompt_ids, skip_special_tokens=True)
        behind = suffix if isinstance(suffix, str) else codec.decode(suffix)
        return self.engine.live.codec.encode_prompt(prompt + tree.completion_text(node) + behind)


def _have_same_tokens(one: Codec, other: Codec) -> bool:
    """Whether a path's tokens mean the same to both models."""
    if one.tokenizer is None or other.tokenizer is None:
        return one.tokenizer is other.tokenizer and one.vocab_size == other.vocab_size
    return one.tokenizer.get_vocab() == other.tokenizer.get_vocab()
