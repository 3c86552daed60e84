"""Speculation as the engine's step sees it: propose, attach, and learn what came of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ramify.core.errors import InputError, expected_got
from ramify.core.speculative import SpeculativeConfig
from ramify.engine.batch import BatchBuilder, StepBatch
from ramify.engine.decode_loop import MAX_LOOP_ROWS
from ramify.engine.live import LiveTrees
from ramify.engine.record import Wanted
from ramify.engine.request import Fan, Grow, Request, Task, cursor_of
from ramify.engine.speculation.branch import Drafting, Path
from ramify.engine.speculation.draft import DraftContext, Drafter, ReadsHidden
from ramify.engine.speculation.gain import StepCosts, smoothed
from ramify.engine.speculation.verify import attach, discard
from ramify.engine.structured.draft import legal_part
from ramify.search.tree import NodeState


class Speculator:
    """Asks a drafter for every branch that decodes. One engine has at most one."""

    def __init__(
        self,
        drafter: Drafter,
        config: SpeculativeConfig,
        live: LiveTrees,
        clock: Callable[[], float],
    ) -> None:
        self._drafter = drafter
        self._config = config
        self._live = live
        self._clock = clock
        self._costs = StepCosts()
        self._asked: list[Grow] = []  # of the present step
        self._num_draft_rows = 0
        self._propose_s: float | None = None  # that a drafter takes for a step, of late

    # ── before the forward pass ──────────────────────────────────────────────────────────────────
    def propose(
        self, tasks: Sequence[tuple[Task, int]], fail: Callable[[Request, Exception], None]
    ) -> None:
        """Ask for drafts of the branches that get their next token in this step.

        Args:
            tasks: what the step computes, with the rows each task may have.
            fail: ends a request whose drafter raised or broke its rules; its tasks are gone then.
        """
        self._asked, self._num_draft_rows = [], 0
        for task, _ in tasks:
            if isinstance(task, Grow) and task.drafting is not None:
                task.drafting.draft = task.drafting.drawn_row = None
        grows = [task for task, _ in tasks if isinstance(task, Grow) and self._is_due(task)]
        rows = sum(min(rows, self._live.tokens_to_open(task)) for task, rows in tasks)
        free = min(MAX_LOOP_ROWS, self._live.cache.available) - max(rows, len(tasks))
        share = min(free // max(len(grows), 1), self._config.num_speculative_tokens)
        if share < 1:
            for task in grows:
                _drafting(task).gain.pause(len(task.request.tree[task.node].token_ids))
            return
        wanted = [(task, self._context(task, share)) for task in grows]
        wanted = [(task, context) for task, context in wanted if context.max_depth > 0]
        if wanted:
            self._ask(wanted, fail)

    def _ask(
        self,
        wanted: Sequence[tuple[Grow, DraftContext]],
        fail: Callable[[Request, Exception], None],
    ) -> None:
        """Note a draft with each branch that gets one; the user's drafter may raise anything."""
        began_s = self._clock()
        try:
            drafts = self._drafter.propose([context for _, context in wanted])
            self._propose_s = smoothed(self._propose_s, self._clock() - began_s)
            if len(drafts) != len(wanted):
                raise InputError(expected_got("drafts", f"{len(wanted)} trees", len(drafts)))
        except Exception as error:
            for request in {task.request: None for task, _ in wanted}:
                fail(request, error)
            return
        for (task, context), draft in zip(wanted, drafts, strict=True):
            limits = self._live.codec.vocab_size, context.max_tokens, context.max_depth
            try:
                draft = draft.checked(*limits)
            except Exception as error:
                fail(task.request, error)
                continue
            if task.grammar is not None:
                draft = legal_part(draft, task.grammar, self._live.rules.stop_ids(task.params))
            _drafting(task).draft = draft
            self._asked.append(task)

    def _is_due(self, task: Grow) -> bool:
        """Whether a branch gets its next token in this step and is worth a draft."""
        if self._live.cache.pending(cursor_of(task)) != 1:
            return False
        known = task.request.tree[task.node].token_ids
        drafting = task.drafting
        if drafting is None:
            prefix = task.request.tree.completion_ids(task.node)
            task.drafting = Drafting(Path([*task.request.prompt_ids, *prefix]))
            return True
        drafting.path.extend(known[drafting.path.length - task.begin :])
        return len(known) >= drafting.gain.resume_at

    def _context(self, task: Grow, share: int) -> DraftContext:
        # one of the tokens that may come is drawn behind the last accepted one
        depth = min(self._config.depth, share, self._live.most_tokens(task) - 1)
        return DraftContext(
            branch=(task.request.id, task.node),
            token_ids=_drafting(task).path.view(),
            params=task.params,
            seed=task.request.tree[task.node].seed,
            max_tokens=share,
            max_depth=depth,
        )

    def attach(self, builder: BatchBuilder, tasks: Sequence[Task]) -> None:
        """Add drafts to the rows of the step, of tasks whose tips it computes."""
        for task in tasks:
            drafting = task.drafting if isinstance(task, Grow) else None
            if drafting is None or drafting.draft is None:
                continue
            assert isinstance(task, Grow)
            # others may have taken the slots that were there
            size, cache = len(drafting.draft.tokens), self._live.cache
            if 0 < size <= cache.available and cursor_of(task).node.is_tip:
                drafting.guess = attach(cache, builder, task, drafting.draft)
                self._num_draft_rows += size

    # ── the step, and after it ───────────────────────────────────────────────────────────────────
    @contextmanager
    def verifying(self, batch: StepBatch, token_bytes: int) -> Iterator[None]:
        """Learn from a step of which the body writes the tokens down; if it fails, undo drafts."""
        began_s = self._clock()
        try:
            yield
        except BaseException:
            discard(self._live.cache, self._asked)
            self._asked = []
            raise
        self._close_step(len(batch.token_ids), self._clock() - began_s, token_bytes)

    def _close_step(self, rows: int, seconds: float, token_bytes: int) -> None:
        self.note_cost(rows, seconds)
        drafted = self._num_draft_rows
        ratio = self._costs.ratio(rows - drafted, drafted, self._propose_s or 0.0)
        for task in self._asked:
            drafting, node = _drafting(task), task.request.tree[task.node]
            kept, drafting.num_kept = drafting.num_kept, 0
            length = drafting.path.length
            # alone, a branch would have read its path for each of them
            alone = (2 * length + kept + 1) * kept // 2
            task.request.usage.kv_bytes_per_branch += alone * token_bytes
            if self._config.adaptive:
                drafting.gain.note(kept, ratio, len(node.token_ids))
        self._asked = []

    def observe(self, ready: Sequence[tuple[Task, Wanted, bool]], hidden: Tensor | None) -> None:
        """Show the drafter the hidden states of a step, whose tokens are written down.

        Args:
            hidden: [n, hidden], behind the step's logits; None: nobody keeps them.
        """
        if hidden is None or not isinstance(self._drafter, ReadsHidden):
            return
        branches: list[tuple[Hashable, int]] = []
        rows: list[int] = []
        for task, wanted, is_complete in ready:
            if is_complete and isinstance(task, Grow) and task.id in self._live.tasks:
                drafting = task.drafting
                drawn = None if drafting is None else drafting.drawn_row
                branches.append(((task.request.id, task.node), cursor_of(task).length))
                rows.append(next(iter(wanted.values())) if drawn is None else drawn)
            elif is_complete and isinstance(task, Fan):
                children = self._first_tokens(task)
                branches += children
                rows += [next(iter(wanted.values()))] * len(children)
        self._drafter.observe(
            branches, hidden[torch.tensor(rows, dtype=torch.long, device=hidden.device)]
        )

    @staticmethod
    def _first_tokens(fan: Fan) -> list[tuple[Hashable, int]]:
        """Branches below a node that have one token each, all drawn from the node's last row."""
        tree, length = fan.request.tree, cursor_of(fan).length + 1
        nodes = (tree[child] for child in tree[fan.node].children)
        young = [n for n in nodes if n.state is NodeState.GROWING and len(n.token_ids) == 1]
        return [((fan.request.id, node.id), length) for node in young]

    def note_cost(self, num_rows: int, seconds: float) -> None:
        """Learn how long a step took."""
        self._costs.note(num_rows, seconds)

    def learn(self, request: Request) -> None:
        """Let the drafter hear of what a request has brought."""
        for node in request.finish.outputs if request.finish is not None else ():
            self._drafter.learn([*request.prompt_ids, *request.tree.completion_ids(node)])


def _drafting(task: Grow) -> Drafting:
    assert task.drafting is not None, "a branch that was asked about has its drafts"
    return task.drafting
