"""A smaller model drafts: it grows a tree level by level and keeps the most probable tokens.

The chance of a draft token is the product of the draft model's chances along its path. A level goes
on from its best tokens; of all that were seen the best are the draft. Where a branch samples, the
draft model's logits get the noise that the branch itself will draw with, so that both models tend
to draw the same token. The draft model has a token tree of its own, whose prefix cache knows the
paths.
Source: the dynamic draft trees of EAGLE-2 (Li et al. 2024).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ramify.cache import Cursor, TokenTree
from ramify.core.config import EngineConfig
from ramify.core.errors import ConfigError, OutOfSlots, expected_got
from ramify.core.speculative import SpeculativeConfig
from ramify.engine.batch import BatchBuilder
from ramify.engine.executor import Executor
from ramify.engine.part import load_part, model_dir_of, open_executor
from ramify.engine.speculation.device_noise import with_noise
from ramify.engine.speculation.draft import DraftContext, DraftTree
from ramify.engine.speculation.shape import ROOT
from ramify.models import Shard

MOST_ROWS = 512
"""Rows of a step in which the draft model reads what it has not seen of the paths."""


def open_draft_model(config: SpeculativeConfig, engine: EngineConfig, vocab_size: int) -> Executor:
    """Load the draft model beside the target. Raises ConfigError."""
    assert config.model is not None, "a config of a draft model names it"
    settings = replace(
        engine,
        model=config.model,
        num_slots=config.num_slots,
        kv_gib=None,
        max_context=None,
        quantization="none",
        kv_cache_dtype="auto",
        run_ahead=False,
        tensor_parallel_size=1,
        speculative_config=None,
    )
    part = load_part(model_dir_of(config.model), settings, Shard())
    got = part.model.config.vocab_size
    if got != vocab_size:
        wanted = f"a vocabulary of {vocab_size}, the target's"
        raise ConfigError(expected_got(f"draft model {config.model!r}", wanted, got))
    return open_executor(part.config, part.model)


@dataclass(slots=True)
class _Growing:
    """A draft on its way. Lists go by token seen; `chance` is that of the path to it."""

    context: DraftContext
    tip: Cursor
    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    chance: list[float] = field(default_factory=list)
    cursors: dict[int, Cursor] = field(default_factory=dict)  # of tokens that were computed
    level: list[int] = field(default_factory=list)  # whose children come next; ROOT at first
    depth: int = 0  # tokens on the path to the level

    def best(self, among: Sequence[int], count: int) -> list[int]:
        """The most probable of some tokens, parents before children."""
        return sorted(sorted(among, key=lambda i: -self.chance[i])[:count])

    def tree(self) -> DraftTree:
        """The most probable tokens."""
        # a path's chance falls at each token, so the best are a tree
        chosen = self.best(range(len(self.tokens)), self.context.max_tokens)
        new = {ROOT: ROOT} | {old: place for place, old in enumerate(chosen)}
        parents = tuple(new[self.parents[i]] for i in chosen)
        return DraftTree(tuple(self.tokens[i] for i in chosen), parents)


class ModelDrafter:
    """Drafts with a model of its own, for all branches of a step together."""

    def __init__(self, executor: Executor, *, num_slots: int, width: int) -> None:
        self._executor = executor
        self._width = width
        self._cache = TokenTree(num_slots)
        self._max_context = executor.model.config.max_positions

    def learn(self, token_ids: Sequence[int]) -> None:
        """The model stays as it is."""

    def propose(self, contexts: Sequence[DraftContext]) -> list[DraftTree]:
        """See Drafter. Branches that do not fit the draft model's pool or context get none."""
        growing = [self._begin(context) for context in contexts]
        live = [draft for draft in growing if draft is not None]
        try:
            while live:
                live = self._grow(live)
        finally:
            for draft in growing:
                if draft is not None:
                    self._cache.prune(draft.cursors.values())
                    self._cache.close(draft.tip, keep=True)
        return [DraftTree() if draft is None else draft.tree() for draft in growing]

    def _begin(self, context: DraftContext) -> _Growing | None:
        length = len(context.token_ids)
        # the room that its levels will need is looked for now
        room = self._cache.available - context.max_depth * self._width
        if length + context.max_depth > self._max_context or length > room:
            return None
        tokens = context.token_ids.tolist()
        # the last token is left to compute: its logits are wanted
        tip = self._cache.open(tokens[:-1])
        self._cache.append(tip, tokens[-1:])
        draft = _Growing(context, tip, level=[ROOT])
        try:
            self._read(draft)
        except OutOfSlots:
            self._cache.close(tip, keep=True)
            return None
        return draft

    def _read(self, draft: _Growing) -> None:
        """Compute all of a path but its last token."""
        while (pending := self._cache.pending(draft.tip)) > 1:
            builder = BatchBuilder(self._cache, self._executor.scratch_slot)
            builder.schedule(draft.tip, min(pending - 1, MOST_ROWS), 0)
            self._executor.run(builder.build())
            builder.commit()

    # ── a level ──────────────────────────────────────────────────────────────────────────────────
    def _grow(self, drafts: Sequence[_Growing]) -> list[_Growing]:
        """Compute a level of every draft and see what may follow; returns those that go on."""
        builder = BatchBuilder(self._cache, self._executor.scratch_slot)
        asked: list[_Growing] = []
        rows: list[int] = []
        for draft in drafts:
            cursors = [draft.tip if i == ROOT else draft.cursors[i] for i in draft.level]
            try:
                for cursor in cursors:
                    builder.schedule(cursor, 1, 0)
            except OutOfSlots:
                continue
            asked.append(draft)
            rows += builder.logits_of_tips(cursors, 0)
        if not asked:
            return []
        logits = self._executor.run(builder.build())
        builder.commit()
        logits = logits[torch.tensor(rows, device=logits.device)]
        best = _best_children(logits, asked, min(self._width, logits.shape[1]))
        for draft in asked:
            self._extend(draft, [next(best) for _ in draft.level])
        return [draft for draft in asked if draft.level]

    def _extend(self, draft: _Growing, children: Sequence[tuple[list[int], list[float]]]) -> None:
        """Add the best children of a level and choose those that the next one goes on from."""
        first = len(draft.tokens)
        for parent, (tokens, chances) in zip(draft.level, children, strict=True):
            above = 1.0 if parent == ROOT else draft.chance[parent]
            draft.tokens += tokens
            draft.parents += [parent] * len(tokens)
            draft.chance += [above * chance for chance in chances]
        draft.depth += 1
        draft.level = []
        if draft.depth < draft.context.max_depth:
            draft.level = draft.best(range(first, len(draft.tokens)), self._width)
        for index in draft.level:
            parent = draft.parents[index]
            base = draft.tip if parent == ROOT else draft.cursors[parent]
            draft.cursors[index] = self._cache.fork(base)
            self._cache.append(draft.cursors[index], [draft.tokens[index]])


def _best_children(
    logits: Tensor, drafts: Sequence[_Growing], count: int
) -> Iterator[tuple[list[int], list[float]]]:
    """For each token of the drafts' levels, what most likely follows, and how likely it is.

    Where a branch samples, the noise of its own draw goes into the logits [rows, vocab].
    """
    of_row = [place for place, draft in enumerate(drafts) for _ in draft.level]
    logits = with_noise(
        logits,
        [draft.context.params.temperature for draft in drafts],
        [(d.context.seed, len(d.context.token_ids) + d.depth) for d in drafts],
        torch.tensor(of_row, device=logits.device),
    )
    chances, tokens = logits.softmax(dim=-1).topk(count, dim=-1)
    return zip(tokens.tolist(), chances.tolist(), strict=True)
