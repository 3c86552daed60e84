"""A tree grown by hand, one action at a time, while others run."""

from __future__ import annotations

from ramify import LLM
from ramify.bench.soak.branch import Branch, branch_of_node, check_logprob, check_usage
from ramify.bench.soak.draws import Draws
from ramify.bench.soak.jobs import Job
from ramify.bench.soak.tally import Tally
from ramify.core.errors import InputError, IntegrityError, RequestAborted, expected_got
from ramify.core.params import SamplingParams
from ramify.engine import NodeHandle, Pin

ACTIONS = "expand expand expand append score ask fork fork rewind pin prune close".split()
PIN_TIMES_S = (None, 0.001, 0.1)


class ByHand(Job):
    """Grow, ask, fork, rewind, pin, prune and close at random nodes, then finish or forget.

    Args:
        is_pinned: its KV stays in the pool whatever happens; such a tree is kept small.
    """

    kind = "tree by hand"

    def __init__(self, draws: Draws, *, is_pinned: bool) -> None:
        self._draws = draws
        self._is_pinned = is_pinned
        self._prompt = draws.prompt()[: draws.longest // 6 if is_pinned else None]
        self._seed = draws.seed()
        self._num_left = draws.count(1, 4 if is_pinned else 12)
        self._nodes: list[NodeHandle] = []
        self._grown: list[tuple[NodeHandle, SamplingParams]] = []
        self._pins: list[Pin] = []
        self._is_over = False

    def start(self, llm: LLM) -> None:
        self._nodes = [llm.tree(self._prompt, seed=self._seed, pin=self._is_pinned)]

    @property
    def request_id(self) -> int | None:
        return self._nodes[0].request_id

    @property
    def is_over(self) -> bool:
        return self._is_over

    def go_on(self) -> None:
        """One action, or the end."""
        root = self._nodes[0]
        try:
            if self._num_left:
                self._num_left -= 1
                getattr(self, f"_{self._draws.pick(ACTIONS)}")(self._any_node())
            else:
                root.finish()
                self._end()
        except RequestAborted:
            if not self.is_aborted:
                raise
            self._end()
        except InputError as error:
            # an abort that has been carried out leaves a tree that is closed
            if not (self.is_aborted and "an open tree" in str(error)):
                raise
            self._end()

    def _end(self) -> None:
        """Pins outlive their tree, but not their user."""
        self._is_over = True
        for pin in self._pins:
            pin.release()

    def check(self, tally: Tally) -> list[Branch]:
        usage = self._nodes[0].usage
        check_usage(usage, len(self._prompt))
        tally.count(usage)
        found = (branch_of_node(node, params) for node, params in self._grown)
        return [branch for branch in found if branch is not None]

    # ── actions ──────────────────────────────────────────────────────────────────────────────────
    def _any_node(self) -> NodeHandle:
        return self._draws.pick([n for n in self._nodes if n.state == "idle"] or self._nodes[:1])

    def _room(self, node: NodeHandle) -> int:
        most = 8 if self._is_pinned else 32
        return min(self._draws.longest - len(node.path_token_ids), most)

    def _expand(self, node: NodeHandle) -> None:
        if (room := self._room(node)) < 1:
            return
        params = self._draws.node_params(room)
        made = node.expand(self._draws.count(1, 2 if self._is_pinned else 5), params)
        self._nodes += made
        self._grown += [(child, params) for child in made]

    def _append(self, node: NodeHandle) -> None:
        if (room := self._room(node)) < 1:
            return
        tokens = self._draws.tokens(self._draws.count(1, room))
        child = node.append(tokens, logprobs=self._draws.pick([None, 0, 2]))
        self._nodes.append(child)
        if child.token_ids != tokens:
            raise IntegrityError(expected_got("appended tokens", tokens, child.token_ids))

    def _score(self, node: NodeHandle) -> None:
        if (room := self._room(node)) < 1:
            return
        given = [self._draws.tokens(self._draws.count(1, room)) for _ in range(3)]
        for score, tokens in zip(node.score(given), given, strict=True):
            if [t.token_id for t in score.token_logprobs] != tokens:
                raise IntegrityError(expected_got("scored tokens", tokens, score))
            check_logprob(score.logprob)

    def _ask(self, node: NodeHandle) -> None:
        suffix = "so" if self._draws.has_text and self._room(node) > 8 else ""
        for logprob in node.ask(suffix, self._draws.tokens(2)):
            check_logprob(logprob)

    def _fork(self, node: NodeHandle) -> None:
        at = self._draws.count(len(self._prompt), len(node.path_token_ids))
        path = node.path_token_ids[:at]
        self._nodes.append(node.fork(at))
        if self._nodes[-1].path_token_ids != path:
            raise IntegrityError(expected_got("forked path", path, self._nodes[-1].path_token_ids))

    def _rewind(self, node: NodeHandle) -> None:
        if node.parent is None or node.children:
            return
        path = node.path_token_ids
        to = self._draws.count(len(self._prompt), len(path))
        if node.rewind(to=to).path_token_ids != path[:to]:
            raise IntegrityError(expected_got("rewound path", path[:to], node.path_token_ids))

    def _pin(self, node: NodeHandle) -> None:
        self._pins.append(node.pin(self._draws.pick(PIN_TIMES_S)))

    def _prune(self, node: NodeHandle) -> None:
        if node.parent is not None:
            node.prune()

    def _close(self, node: NodeHandle) -> None:
        if node.parent is not None and node.children:
            node.close()


def by_hand(draws: Draws) -> Job:
    """A tree that may use what every request may."""
    return ByHand(draws, is_pinned=False)


def pinned(draws: Draws) -> Job:
    """A small tree that is never preempted."""
    return ByHand(draws, is_pinned=True)
