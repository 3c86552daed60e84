"""Everything alive in the engine: requests, their tasks, and their paths in the token tree.

A request's paths live in `request.cursors`, one per logical node that may still be grown from.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from ramify.cache import Cursor, Node, TokenTree
from ramify.core.errors import InputError, expected_got
from ramify.core.outputs import TokenLogprob
from ramify.core.seeds import child_seed
from ramify.engine.codec import Codec
from ramify.engine.pins import Pins
from ramify.engine.request import Beams, Fan, Force, Grow, Request, Reveal, Task
from ramify.engine.reward.valuer import Valuer
from ramify.engine.rules import Limits, Rules
from ramify.engine.text import CONTEXT_TOKENS, TextStream
from ramify.search.controller import Append, Finish, Finished, Score, subject
from ramify.search.tree import LogicalNode, NodeState


class LiveTrees:
    """The engine's books. Every edit of the token tree that a request causes happens here."""

    def __init__(
        self,
        cache: TokenTree,
        codec: Codec,
        limits: Limits,
        *,
        prefix_cache: bool,
        clock: Callable[[], float],
    ) -> None:
        self.cache = cache
        self.codec = codec
        self.limits = limits
        self.rules = Rules(codec, limits)
        self.requests: dict[int, Request] = {}
        self.tasks: dict[int, Task] = {}
        self.pins = Pins(cache, keep=prefix_cache, clock=clock)
        self.valuer: Valuer | None = None
        self._prefix_cache = prefix_cache
        self._task_ids = itertools.count()

    # ── tasks ────────────────────────────────────────────────────────────────────────────────────
    def next_task_id(self) -> int:
        """A number no other task has; tasks of one request run in this order."""
        return next(self._task_ids)

    def add_task(self, task: Task) -> None:
        """Take a task into the books; it waits until the policy admits it."""
        self.tasks[task.id] = task
        task.request.tasks[task.id] = task

    def drop_task(self, task: Task) -> None:
        """Forget a task that is done or no longer wanted."""
        self.tasks.pop(task.id, None)
        task.request.tasks.pop(task.id, None)
        is_score = isinstance(task, Force) and isinstance(task.action, Score)
        if is_score and task.cursor is not None:
            # the suffix of a score leaves no trace
            self.cache.close(task.cursor, keep=False)
            task.cursor = None

    def value(self, request: Request, action: Score, then: Finished | None = None) -> None:
        """Have the reward model value a path. Raises InputError when there is none."""
        if self.valuer is None:
            got = "an engine without one"
            raise InputError(expected_got("Score.reward", "a reward_model to ask", got))
        task = Force(
            id=self.next_task_id(),
            request=request,
            node=action.node,
            action=action,
            tokens=(),
            then=then,
        )
        self.valuer.ask(self, task)

    def end_branch(self, request: Request, node: LogicalNode, tag: object) -> None:
        """A branch has its last token: tell the controller, once its value is known if it asks."""
        node.state = NodeState.IDLE
        ended = Finished(node=node.id, tag=tag)
        if request.is_valued:
            self.value(request, Score(node=node.id, reward=True), then=ended)
        else:
            request.events.append(ended)

    def reveal(self, request: Request, top: int) -> None:
        """Compute a prompt's own log-probabilities before its controller starts."""
        self.add_task(
            Reveal(id=self.next_task_id(), request=request, node=request.tree.root, top=top)
        )

    # ── opening: from a waiting task to a path in the cache ──────────────────────────────────────
    def tokens_to_open(self, task: Task) -> int:
        """Upper bound of the tokens a task has to compute."""
        shared, own = self.pending_parts(task)
        return shared + own

    def pending_parts(self, task: Task) -> tuple[int, int]:
        """Tokens to compute: on the path a task shares with siblings, and of its own."""
        if isinstance(task, Beams):
            return 0, self.cache.pending(*task.tips)
        base = task.request.cursors.get(self.start_node(task))
        if task.cursor is None:
            if isinstance(task, Force) and task.below is not None and base is None:
                return 0, task.extra_tokens  # the path above is pending with the token above
            known = len(task.request.prompt_ids) if base is None else self.cache.pending(base)
            return known, task.extra_tokens
        # a base that was closed in the meantime is shared with nobody who waits
        shared = 0 if base is None else self.cache.pending(base)
        return shared, self.cache.pending(task.cursor) - shared

    def open(self, task: Task) -> Cursor:
        """Give a task its path, matching the prompt against the cache when it is the first."""
        if task.cursor is not None:
            return task.cursor
        request = task.request
        start = self.start_node(task)
        if start not in request.cursors:
            if isinstance(task, Force) and task.below is not None:
                self.open(task.below)
            else:
                self._open_root(request)
        base = request.cursors[start]
        if not isinstance(task, Force):
            task.cursor = base
            return base
        task.begin = base.length
        task.cursor = self.cache.fork(base)
        if task.tokens:
            self.cache.append(task.cursor, task.tokens)
        if isinstance(task.action, Append):
            request.cursors[task.node] = task.cursor
        return task.cursor

    def is_unopened(self, task: Task) -> bool:
        """Whether the task's request holds no path yet."""
        return task.request.tree.root not in task.request.cursors and not task.paths

    def cached_tokens(self, request: Request) -> tuple[int, int]:
        """Tokens of a prompt that the cache has, and those of them that no path uses.

        As far as paths have not come or gone since it was looked at.
        """
        if not self._prefix_cache:
            return 0, 0
        clock, known, idle = request.prompt_match
        if clock != self.cache.clock:
            known, idle = self.cache.cached_match(request.prompt_ids)
            request.prompt_match = (self.cache.clock, known, idle)
        return known, idle

    def coming(self) -> set[Node]:
        """Nodes that running tasks compute now; those of idle and preempted paths may never come.

        Empty without a prefix cache, where nobody could use them.
        """
        if not self._prefix_cache:
            return set()
        running = (task for task in self.tasks.values() if task.is_running)
        return self.cache.coming(path for task in running for path in task.paths)

    def shares_prefill(self, request: Request, coming: set[Node]) -> bool:
        """Whether more of this prompt is coming than is cached now."""
        if not coming:
            return False
        prompt = request.prompt_ids
        return self.cache.in_flight_match(prompt, coming) > self.cache.computed_match(prompt)

    def path_of(self, request: Request, node: int) -> Cursor:
        """A live path through the end of `node`. Raises InputError when none is left."""
        if node == request.tree.root and not request.cursors:
            self._open_root(request)
        for step in request.tree.subtree(node):
            if step.id in request.cursors:
                return request.cursors[step.id]
        raise InputError(expected_got(f"node {node}", "a node with a live path", "none"))

    def start_node(self, task: Task) -> int:
        """The logical node whose path the task starts from."""
        if isinstance(task, Force) and isinstance(task.action, Append):
            return task.action.node
        return task.node

    def _open_root(self, request: Request) -> None:
        cursor = self.cache.open(request.prompt_ids, reuse=self._prefix_cache)
        request.cursors[request.tree.root] = cursor
        request.usage.cached_tokens = cursor.length - self.cache.pending(cursor)
        if request.is_pinned:
            self.cache.pin(cursor)

    # ── growth ───────────────────────────────────────────────────────────────────────────────────
    def spawn(self, fan: Fan, tokens: Sequence[TokenLogprob], seeds: Sequence[int]) -> list[Grow]:
        """Make the children of an `Expand`, each with its first token still to be recorded."""
        request, params = fan.request, fan.action.params
        assert fan.cursor is not None, "a fan is spawned from an open path"
        context = request.tree.tail(fan.node, CONTEXT_TOKENS)
        grammar = self.rules.grammar(request, fan.node, params.structured)
        children = []
        for token, seed in zip(tokens, seeds, strict=True):
            node = request.tree.add(fan.node, seed=seed, tag=fan.action.tag)
            node.structured = params.structured
            cursor = self.cache.fork(fan.cursor)
            self.cache.append(cursor, [token.token_id])
            request.cursors[node.id] = cursor
            stream = TextStream(
                self.codec.tokenizer, context, skip_special_tokens=params.skip_special_tokens
            )
            task = Grow(
                id=self.next_task_id(),
                request=request,
                node=node.id,
                cursor=cursor,
                is_running=True,
                params=params,
                stream=stream,
                history=self.rules.history(request, fan.node, params),
                grammar=grammar and grammar.fork(),
                begin=cursor.length - 1,
                tag=fan.action.tag,
            )
            self.add_task(task)
            children.append(task)
        return children

    def most_tokens(self, task: Grow) -> int:
        """Tokens a branch may still get."""
        generated = len(task.request.tree[task.node].token_ids)
        room = self.limits.max_context - task.begin
        return min(task.params.max_tokens, room) - generated

    def fork_seeds(self, request: Request, node: int, k: int) -> list[int]:
        """Seeds of the next k branches grown from a node, from its seed and their indices."""
        seed = request.tree[node].seed
        return [child_seed(seed, request.next_fork(node)) for _ in range(k)]

    # ── pressure ─────────────────────────────────────────────────────────────────────────────────
    def private_slots(self, task: Task) -> int:
        """Slots that suspending the task would free."""
        return self.cache.private_slots(*task.paths)

    def suspend(self, task: Task) -> None:
        """Preempt a task: drop the KV that only its path uses; tokens stay and are recomputed."""
        task.is_running = False
        task.request.usage.preemptions += 1
        if not task.request.is_pinned:
            self.cache.drop(*task.paths)

    def drop_idle(self, wanted: int) -> int:
        """Drop the KV of paths that nothing is computing, youngest request first.

        Stops once `wanted` slots came free; returns how many did.
        """
        freed = 0
        for request in sorted(self.requests.values(), key=lambda r: -r.id):
            if freed >= wanted:
                break
            if not request.is_pinned:
                freed += self.cache.drop(*self._idle_cursors(request))
        return freed

    def _idle_cursors(self, request: Request) -> list[Cursor]:
        """Paths of a request that no running task extends."""
        busy = {id(c) for task in request.tasks.values() if task.is_running for c in task.paths}
        held = [*request.cursors.values(), *(c for t in request.tasks.values() for c in t.paths)]
        if request.beams is not None:
            held += [*request.beams.tips, *request.beams.let_go]
        return [c for c in {id(c): c for c in held}.values() if id(c) not in busy]

    # ── endings ──────────────────────────────────────────────────────────────────────────────────
    def prune(self, request: Request, node: int) -> int:
        """Cut a logical subtree; returns the slots freed."""
        gone = {step.id for step in request.tree.subtree(node)}
        for task in [t for t in request.tasks.values() if t.node in gone]:
            self.drop_task(task)
        cursors = [request.cursors.pop(n) for n in sorted(gone) if n in request.cursors]
        for n in gone:
            request.tree[n].state = NodeState.PRUNED
        request.events = [e for e in request.events if subject(e) not in gone]
        return self.cache.prune(cursors)

    def close(self, request: Request, node: LogicalNode) -> None:
        """Give up a node's own path; what hangs below it lives on and may merge with it."""
        for task in [t for t in request.tasks.values() if self.start_node(t) == node.id]:
            self.open(task)
        cursor = request.cursors.pop(node.id, None)
        node.state = NodeState.CLOSED
        if cursor is not None:
            self.cache.close(cursor, keep=False)

    def finish(self, request: Request, action: Finish) -> None:
        """End a request as its controller wishes; growing branches that are no output are cut."""
        request.tree.prune_growing(keep=action.outputs)
        request.finish = action
        self.release(request, keep={request.tree.root, *action.outputs})

    def release(self, request: Request, keep: set[int]) -> None:
        """End a request: kept paths become prefix cache, everything else is freed."""
        for task in list(request.tasks.values()):
            self.drop_task(task)
        kept = [request.cursors.pop(n) for n in sorted(keep) if n in request.cursors]
        beams = request.beams
        front = [*beams.tips, *beams.let_go] if beams is not None else []
        self.cache.prune([*request.cursors.values(), *front])
        request.cursors.clear()
        request.beams = None
        for cursor in kept:
            if request.is_pinned:
                self.cache.unpin(cursor)
            self.cache.close(cursor, keep=self._prefix_cache)
        self.pins.leave(request.id)
        request.events.clear()
        self.requests.pop(request.id, None)
