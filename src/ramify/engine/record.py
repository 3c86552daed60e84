"""After a forward pass: draw tokens, record them in the trees, notice stops, raise events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ramify.core.outputs import FinishReason, TokenLogprob
from ramify.engine.beams import rank
from ramify.engine.drawn_steps import DrawnRun
from ramify.engine.draws import DrawTable, may_run_ahead
from ramify.engine.live import LiveTrees
from ramify.engine.request import (
    Beams,
    Fan,
    Force,
    Grow,
    Reveal,
    Task,
    cursor_of,
    num_generated,
)
from ramify.engine.reward.own import OwnHead
from ramify.engine.reward.valuer import answer
from ramify.engine.sample import SampleRow, token_logprobs, top_logprobs
from ramify.engine.speculation.branch import Guess
from ramify.engine.speculation.verify import accept, drafted, draws_of, guess_of
from ramify.engine.structured.draw import draw, end_stuck
from ramify.engine.text import find_stop
from ramify.search.controller import Append, Appended, Scored, Spawned, Started
from ramify.search.tree import LogicalNode, NodeState

Wanted = Mapping[int, int]
"""Absolute position, of Beams the branch -> index among the step's logits, for one task."""


class Recorder:
    """Turns the logits of a step into tokens on the logical trees and events for controllers."""

    def __init__(self, live: LiveTrees, clock: Callable[[], float]) -> None:
        self._live = live
        self._clock = clock
        self.head: OwnHead | None = None
        self._values: dict[int, float] = {}  # of the present step's tasks that asked for one

    def record(
        self,
        logits: Tensor,
        ready: Sequence[tuple[Task, Wanted, bool]],
        hidden: Tensor | None = None,
    ) -> None:
        """Serve every task of the step.

        Args:
            logits: [n, vocab] float32.
            ready: per task the logits it got and whether its whole path is computed now.
            hidden: [n, hidden], what the logits were made of, where a head reads it.
        """
        if self.head is not None:
            self._values = self.head.values(hidden, ready)
        draws: list[SampleRow] = []
        draw_of: list[tuple[Task, int, int]] = []
        for task, wanted, is_complete in ready:
            if isinstance(task, Force):
                self._serve_force(task, logits, wanted, is_complete)
            elif isinstance(task, Reveal):
                self._serve_reveal(task, logits, wanted, is_complete)
            elif isinstance(task, Beams):
                rank(self._live, task, logits, wanted)
            elif is_complete:
                rows = self._draws(task, wanted)
                draw_of.append((task, len(draws), len(draws) + len(rows)))
                draws += rows
        tokens = draw(logits, draws, self._live) if draws else []
        for task, begin, end in draw_of:
            drawn = tokens[begin:end]
            if drawn[0] is None:
                end_stuck(self._live, task, draws[begin])
            elif isinstance(task, Fan):
                seeds = [row.seed for row in draws[begin:end]]
                self._serve_fan(task, [token for token in drawn if token is not None], seeds)
            else:
                assert isinstance(task, Grow)
                self._serve_grow(task, drawn)

    def record_complete(self, ready: Sequence[tuple[Task, Wanted, bool]]) -> None:
        """Serve tasks that ask for no logits, without a forward pass."""
        self.record(torch.empty(0, 0), ready)

    # ── several steps at once ────────────────────────────────────────────────────────────────────
    def steady_draws(self, ready: Sequence[tuple[Task, Wanted, bool]]) -> list[SampleRow] | None:
        """The draws of a step, row by row, if those of the steps after it follow from them.

        That is where every task grows a branch, and by no grammar: what one lets pass is known
        only when the host has seen the token before. See `may_run_ahead` too.
        """
        draws = []
        for task, wanted, is_complete in ready:
            if not (isinstance(task, Grow) and is_complete and task.grammar is None):
                return None
            if task.tokens_to_draft == 0:
                return None
            draws += self._draws(task, wanted)
        is_identity = [draw.row for draw in draws] == list(range(len(draws)))
        return draws if is_identity and may_run_ahead(draws) else None

    def loop_draws(
        self, ready: Sequence[tuple[Task, Wanted, bool]], num_rows: int
    ) -> DrawTable | None:
        """The draws of one step, where a token is drawn from every row, and by numbers alone."""
        rules: list[SampleRow] = []
        guesses: list[Guess | None] = []
        for task, wanted, is_complete in ready:
            if not (isinstance(task, Grow) and is_complete and _is_plain(task)):
                return None
            rules += self._tips(task, wanted)
            guesses.append(guess_of(task))
        row, table = drafted(rules, guesses)
        return table if np.array_equal(row, np.arange(num_rows)) else None

    def rules_of(self, ready: Sequence[tuple[Task, Wanted, bool]]) -> list[SampleRow]:
        """By which rules branches draw, a row each; their rows and positions do not count."""
        return [rule for task, wanted, _ in ready for rule in self._tips(task, wanted)]

    def record_loop(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        ready: Sequence[tuple[Task, Wanted, bool]],
    ) -> None:
        """Serve every task of a step that `loop_draws` gave the draws of, row by row."""
        for task, wanted, _ in ready:
            assert isinstance(task, Grow)
            (tip,) = wanted.values()
            self._serve_drawn(task, tip, tokens, logprobs)

    def _serve_drawn(
        self, task: Grow, tip: int, tokens: Sequence[int], logprobs: Sequence[float]
    ) -> None:
        guess = guess_of(task)
        if guess is None:
            self._live.cache.append(cursor_of(task), [tokens[tip]])
            self._record_token(task, tokens[tip], logprobs[tip])
            return
        rows = [tip, *range(guess.first, guess.first + len(guess.tree.tokens))]

        def record(at: int) -> None:
            self._record_token(task, tokens[rows[at]], logprobs[rows[at]])

        accept(self._live, task, [tokens[row] for row in rows], record)

    def record_run(self, task: Grow, run: DrawnRun) -> None:
        """Write down the tokens of several steps, of which only the last may end the branch.

        They are on the task's path already.
        """
        tree, usage = task.request.tree, task.request.usage
        node, tokens, logprobs = tree[task.node], run.tokens, run.logprobs
        if run.reported:
            node.logprobs = [*(node.logprobs or ()), *run.reported]
        if task.history is not None:
            task.history.generated.update(tokens)
        before = len(tokens) - 1
        if before:
            node.token_ids += tokens[:-1]
            total = node.cumulative_logprob
            for logprob in logprobs[:-1]:  # `sum` of newer Pythons rounds otherwise
                total += logprob
            node.cumulative_logprob = total
            node.token_logprobs += logprobs[:-1]
            node.text += task.stream.extend(tokens[:-1])
            tree.generated_tokens += before
            usage.generated_tokens += before
        self._record_token(task, tokens[-1], logprobs[-1])

    # ── sampling ─────────────────────────────────────────────────────────────────────────────────
    def _draws(self, task: Task, wanted: Wanted) -> list[SampleRow]:
        """The tokens a Grow or Fan draws from its one row of logits, and those behind a draft."""
        draws = self._tips(task, wanted)
        if isinstance(task, Grow) and (guess := guess_of(task)) is not None:
            generated = len(task.request.tree[task.node].token_ids)
            draws += draws_of(guess, draws[0], task.params.min_tokens - generated)
        return draws

    def _tips(self, task: Task, wanted: Wanted) -> list[SampleRow]:
        """The tokens a Grow or Fan draws from its one row of logits."""
        ((position, row),) = wanted.items()
        request, live = task.request, self._live
        if isinstance(task, Grow):
            params, seeds, history = task.params, [request.tree[task.node].seed], task.history
            grammar = task.grammar
            generated = len(request.tree[task.node].token_ids)
        else:
            assert isinstance(task, Fan)
            params, generated = task.action.params, 0
            seeds = live.fork_seeds(request, task.node, task.action.k)
            history = live.rules.history(request, task.node, params)
            grammar = live.rules.grammar(request, task.node, params.structured)
        banned = live.rules.stop_ids(params) if generated < params.min_tokens else ()
        return [
            SampleRow(
                row=row,
                params=params,
                seed=seed,
                position=position + 1,
                banned=banned,
                history=history,
                grammar=grammar,
            )
            for seed in seeds
        ]

    def _serve_fan(self, fan: Fan, tokens: Sequence[TokenLogprob], seeds: Sequence[int]) -> None:
        """Turn an `Expand` into growing children, each with its first token."""
        children = self._live.spawn(fan, tokens, seeds)
        self._live.drop_task(fan)
        fan.request.events.append(
            Spawned(
                parent=fan.node,
                nodes=tuple(child.node for child in children),
                tag=fan.action.tag,
            )
        )
        for child, token in zip(children, tokens, strict=True):
            self._record_reported(child, token)

    def _serve_grow(self, task: Grow, tokens: Sequence[TokenLogprob | None]) -> None:
        """Give a branch its next token or, of a draft, its next tokens."""
        if guess_of(task) is not None:
            self._accept(task, tokens)
            return
        (token,) = tokens
        assert token is not None, "a branch that is stuck was ended"
        self._live.cache.append(cursor_of(task), [token.token_id])
        self._record_reported(task, token)

    def _accept(self, task: Grow, tokens: Sequence[TokenLogprob | None]) -> None:
        """Give a branch what was drawn along its draft."""

        def record(at: int) -> None:
            token = tokens[at]
            assert token is not None, "only tokens that were drawn are on the path"
            self._record_reported(task, token)

        accept(self._live, task, [t if t is None else t.token_id for t in tokens], record)

    def _record_reported(self, task: Grow, token: TokenLogprob) -> None:
        """Write one sampled token down, with its alternatives where they were asked for."""
        if task.params.logprobs is not None:
            node = task.request.tree[task.node]
            node.logprobs = [*(node.logprobs or ()), token]
        if task.history is not None:
            task.history.generated[token.token_id] += 1
        self._record_token(task, token.token_id, token.logprob)

    def _record_token(self, task: Grow, token: int, logprob: float) -> None:
        """Add one sampled token to its branch, and end the branch if it stops."""
        request = task.request
        node = request.tree[task.node]
        node.token_ids.append(token)
        node.token_logprobs.append(logprob)
        node.cumulative_logprob += logprob
        request.tree.generated_tokens += 1
        request.usage.generated_tokens += 1
        if request.usage.first_token_s is None:
            request.usage.first_token_s = self._clock() - request.arrived_s
        if task.grammar is not None:
            task.grammar.advance((token,))
        if self._stops(task, node, token):
            self._live.drop_task(task)
            self._live.end_branch(request, node, task.tag)

    def _stops(self, task: Grow, node: LogicalNode, token: int) -> bool:
        """Extend the node's text by a token and decide whether the branch ends with it."""
        params = task.params
        may_stop = len(node.token_ids) >= params.min_tokens
        if may_stop and token in self._live.rules.stop_ids(params):
            node.text += task.stream.flush()
            if params.include_stop_str_in_output:
                node.text += task.stream.push(token)
            # as in vLLM, only a token that was asked for is named; the end of text explains itself
            return _end(node, "stop", token if token in params.stop_token_ids else None)
        added = task.stream.push(token)
        is_over = task.grammar is not None and task.grammar.is_over
        is_last = is_over or self._live.most_tokens(task) <= 0
        if is_last:
            added += task.stream.flush()
        node.text += added
        stop = find_stop(node.text, len(added), params.stop_strings) if may_stop else None
        if stop is not None:
            begin, string = stop
            keep = begin + (len(string) if params.include_stop_str_in_output else 0)
            node.text = node.text[:keep]
            # what completes the text says more than what was to end a part of it
            return _end(node, "stop", None if is_over else string)
        return _end(node, "stop" if is_over else "length", None) if is_last else False

    # ── forced tokens and questions ──────────────────────────────────────────────────────────────
    def _serve_force(self, task: Force, logits: Tensor, wanted: Wanted, is_complete: bool) -> None:
        """Collect log-probabilities of forced tokens; answer when the path is computed."""
        if isinstance(task.action, Append) and task.action.logprobs is not None:
            found = _collect(logits, wanted, task.begin, task.tokens, task.action.logprobs)
            task.collected.update(found)
        if not is_complete:
            return
        last = cursor_of(task).length - 1
        tail = logits[wanted[last]][None] if task.wants_last else None
        top = self._top(task, tail)
        if isinstance(task.action, Append):
            self._serve_append(task, task.action, top)
        elif task.is_valuation:
            answer(task, self._values[task.id])
        else:
            assert tail is not None
            ids = [self._live.codec.label(label) for label in task.action.labels]
            logprobs = tail[0].log_softmax(dim=-1)[ids].tolist() if ids else []
            task.request.events.append(
                Scored(
                    node=task.node,
                    logprobs=tuple(logprobs),
                    top=top,
                    tag=task.action.tag,
                )
            )
        self._live.drop_task(task)

    def _serve_reveal(
        self, task: Reveal, logits: Tensor, wanted: Wanted, is_complete: bool
    ) -> None:
        """Collect the prompt's log-probabilities; the controller starts when all are there."""
        prompt = task.request.prompt_ids
        task.collected.update(_collect(logits, wanted, 1, prompt[1:], task.top))
        if is_complete:
            task.request.prompt_logprobs = [task.collected[at] for at in range(len(prompt) - 1)]
            task.request.events.append(Started(root=task.node))
            self._live.drop_task(task)

    def _top(self, task: Force, tail: Tensor | None) -> tuple[tuple[int, float], ...]:
        """What most probably follows, of `tail` [1, vocab], as far as the action allows it."""
        if tail is None or not task.action.top:
            return ()
        structured = task.action.structured
        grammar = self._live.rules.grammar(task.request, task.node, structured, may_restart=False)
        masks = None if grammar is None else self._live.rules.masks([grammar])
        return top_logprobs(tail, task.action.top, masks)[0]

    def _serve_append(
        self, task: Force, action: Append, top: tuple[tuple[int, float], ...]
    ) -> None:
        node = task.request.tree[task.node]
        logprobs = tuple(task.collected[at] for at in sorted(task.collected))
        node.state = NodeState.IDLE
        node.token_logprobs = [token.logprob for token in logprobs]
        node.cumulative_logprob += sum(node.token_logprobs)
        if action.logprobs is not None:
            node.logprobs = list(logprobs)
        task.request.events.append(
            Appended(
                node=node.id,
                parent=action.node,
                logprobs=logprobs,
                top=top,
                tag=action.tag,
            )
        )


def _collect(
    logits: Tensor, wanted: Wanted, begin: int, tokens: Sequence[int], top: int
) -> dict[int, TokenLogprob]:
    """Log-probabilities of given tokens, the first of which stands at absolute position `begin`.

    Returns them by the position whose logits predict them, one before the token's own.
    """
    positions = [at for at in wanted if begin <= at + 1 < begin + len(tokens)]
    if not positions:
        return {}
    targets = torch.tensor([tokens[at + 1 - begin] for at in positions])
    rows = logits[torch.tensor([wanted[at] for at in positions])]
    found = token_logprobs(rows, targets, [top] * len(positions))
    return dict(zip(positions, found, strict=True))


def _is_plain(task: Grow) -> bool:
    """Whether a token is drawn from the logits by numbers alone, and nothing else is reported."""
    params = task.params
    follows_rules = task.history is not None or task.grammar is not None or params.logit_bias
    is_young = num_generated(task) < params.min_tokens
    return not follows_rules and not is_young and params.logprobs is None


def _end(node: LogicalNode, reason: FinishReason, stop: str | int | None) -> bool:
    node.finish_reason, node.stop_reason = reason, stop
    return True
