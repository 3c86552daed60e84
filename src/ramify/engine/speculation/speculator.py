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
from ramify.engine.speculation.branch import Drafting, Path, drafting_of
from ramify.engine.speculation.draft import DraftContext, Drafter, DraftTree, ReadsHidden
from ramify.engine.speculation.judge import Judge, charge_accepted, pays
from ramify.engine.speculation.verify import attach, discard
from ramify.engine.structured.draft import legal_part
from ramify.search.tree import NodeState


class Speculator:
    """Asks a drafter for every branch that decodes. One engine has at most one.

    Attributes:
        judge: whether drafts pay.
    """

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
        self.judge = Judge(is_adaptive=config.adaptive)
        self._asked: list[Grow] = []  # of the present step
        self._num_draft_rows = 0
        self._is_handed_over = False  # the present step's end, to draft_steps.py

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
        share = self.share(len(grows), max(rows, len(tasks)), self._live.cache.available)
        if share < 1:
            for task in grows:
                drafting_of(task).gain.pause(len(task.request.tree[task.node].token_ids))
            return
        wanted = [(task, self._context(task, share)) for task in grows]
        wanted = [(task, context) for task, context in wanted if context.max_depth > 0]
        if wanted:
            self._ask(wanted, fail)

    @property
    def most_tokens(self) -> int:
        """Of a draft."""
        return self._config.num_speculative_tokens

    def share(self, num_branches: int, other_rows: int, available: int) -> int:
        """The most tokens that each of some branches may draft; below 1 where there is no room."""
        free = min(MAX_LOOP_ROWS, available) - other_rows
        return min(free // max(num_branches, 1), self._config.num_speculative_tokens)

    def _ask(
        self,
        wanted: Sequence[tuple[Grow, DraftContext]],
        fail: Callable[[Request, Exception], None],
    ) -> None:
        """Note a draft with each branch that gets one."""
        for (task, _), draft in zip(wanted, self._drafts(wanted), strict=True):
            if isinstance(draft, Exception):
                fail(task.request, draft)
                continue
            drafting_of(task).draft = draft
            self._asked.append(task)

    def _drafts(
        self, wanted: Sequence[tuple[Grow, DraftContext]]
    ) -> Sequence[DraftTree | Exception]:
        """A draft within limits for each branch, or why it has none: a user's drafter may raise."""
        began_s = self._clock()
        try:
            drafts = self._drafter.propose([context for _, context in wanted])
            self.judge.note_drafting(self._clock() - began_s)
            if len(drafts) != len(wanted):
                raise InputError(expected_got("drafts", f"{len(wanted)} trees", len(drafts)))
        except Exception as error:
            return [error] * len(wanted)
        parts = zip(wanted, drafts, strict=True)
        return [self._checked(task, context, draft) for (task, context), draft in parts]

    def _checked(
        self, task: Grow, context: DraftContext, draft: DraftTree
    ) -> DraftTree | Exception:
        limits = self._live.codec.vocab_size, context.max_tokens, context.max_depth
        try:
            draft = draft.checked(*limits)
        except Exception as error:
            return error
        if task.grammar is not None:
            draft = legal_part(draft, task.grammar, self._live.rules.stop_ids(task.params))
        return draft

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
        return pays(task, len(known))

    def _context(self, task: Grow, share: int, num_fresh: int = 0) -> DraftContext:
        """What a drafter is told.

        Args:
            num_fresh: tokens at the path's end that are not written down yet.
        """
        # one of the tokens that may come is drawn behind the last accepted one
        depth = min(self._config.depth, share, self._live.most_tokens(task) - num_fresh - 1)
        return DraftContext(
            branch=(task.request.id, task.node),
            token_ids=drafting_of(task).path.view(),
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

    # ── steps that follow one another, see draft_steps.py ────────────────────────────────────────
    def hand_over(self) -> int:
        """Leave a step's end to who goes on from it; returns the step's draft tokens."""
        self._asked, self._is_handed_over = [], True
        return self._num_draft_rows

    def guess_on(
        self, tasks: Sequence[Grow], fresh: Sequence[Sequence[int]], share: int
    ) -> list[DraftTree | Exception]:
        """A draft for each branch behind tokens that are drawn and not written down; empty: none.

        Args:
            fresh: those tokens; the branches' paths grow by them here.
            share: tokens of a draft at most.
        """
        contexts = []
        for task, tokens in zip(tasks, fresh, strict=True):
            drafting_of(task).path.extend(tokens)
            contexts.append(self._context(task, share, len(tokens)))
        parts = zip(tasks, contexts, strict=True)
        wanted = [(task, context) for task, context in parts if context.max_depth > 0]
        drafts = iter(self._drafts(wanted) if wanted else ())
        return [next(drafts) if c.max_depth > 0 else DraftTree() for c in contexts]

    def show(
        self, tasks: Sequence[Grow], lengths: Sequence[int], rows: Sequence[int], hidden: Tensor
    ) -> None:
        """Show the drafter, if it looks, the states that the newest tokens were drawn from.

        Args:
            lengths: of the branches' paths, these tokens included.
            rows: of `hidden` [n, hidden].
        """
        if isinstance(self._drafter, ReadsHidden):
            branches: list[tuple[Hashable, int]] = [
                ((task.request.id, task.node), length)
                for task, length in zip(tasks, lengths, strict=True)
            ]
            self._drafter.observe(branches, hidden[_index(rows, hidden)])

    # ── the step, and after it ───────────────────────────────────────────────────────────────────
    @contextmanager
    def verifying(self, batch: StepBatch, token_bytes: int) -> Iterator[None]:
        """Learn from a step of which the body writes the tokens down; if it fails, undo drafts."""
        began_s, self._is_handed_over = self._clock(), False
        try:
            yield
        except BaseException:
            discard(self._live.cache, self._asked)
            self._asked = []
            raise
        if not self._is_handed_over:
            asked, self._asked = self._asked, []
            step = len(batch.token_ids), self._num_draft_rows, self._clock() - began_s
            self.judge.judge_written(asked, step)
            charge_accepted(asked, token_bytes)

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
        self._drafter.observe(branches, hidden[_index(rows, hidden)])

    @staticmethod
    def _first_tokens(fan: Fan) -> list[tuple[Hashable, int]]:
        """Branches below a node that have one token each, all drawn from the node's last row."""
        tree, length = fan.request.tree, cursor_of(fan).length + 1
        nodes = (tree[child] for child in tree[fan.node].children)
        young = [n for n in nodes if n.state is NodeState.GROWING and len(n.token_ids) == 1]
        return [((fan.request.id, node.id), length) for node in young]

    def learn(self, request: Request) -> None:
        """Let the drafter hear of what a request has brought."""
        for node in request.finish.outputs if request.finish is not None else ():
            self._drafter.learn([*request.prompt_ids, *request.tree.completion_ids(node)])


def _index(rows: Sequence[int], hidden: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=torch.long, device=hidden.device)
