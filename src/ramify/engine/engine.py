"""The loop: one step of everything that is alive, to be read aloud.

receive -> policy.decide -> apply -> batch -> executor.run -> record -> controllers.advance -> emit
"""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from ramify.cache import TokenTree
from ramify.core.errors import InputError, OutOfSlots, RequestAborted, expected_got
from ramify.core.seeds import mix64
from ramify.core.speculative import SpeculativeConfig
from ramify.engine import beams
from ramify.engine.assembly import Assembly
from ramify.engine.batch import BatchBuilder, StepBatch
from ramify.engine.charge import charge_step
from ramify.engine.codec import Codec
from ramify.engine.draft_steps import DraftSteps, draft_tasks
from ramify.engine.front_steps import FrontSteps
from ramify.engine.live import LiveTrees
from ramify.engine.parallel import AnyExecutor
from ramify.engine.perform import perform
from ramify.engine.record import Recorder, Wanted
from ramify.engine.request import Beams, Grow, Request, Task
from ramify.engine.reward.own import OwnHead
from ramify.engine.reward.second import SecondModel
from ramify.engine.rules import Limits
from ramify.engine.sample import SampleRow
from ramify.engine.speculation.draft import Drafter, ReadsHidden
from ramify.engine.speculation.speculator import Speculator
from ramify.engine.steady import SteadyDecode, open_steady, steady_tasks
from ramify.engine.view import make_view, relieve
from ramify.scheduling import Policy, View
from ramify.search.controller import Controller, Started
from ramify.search.tree import LogicalTree, NodeState


class Engine:
    """Drives many trees through one model. `step` is called by whoever waits for a result."""

    def __init__(
        self,
        executor: AnyExecutor,
        cache: TokenTree,
        policy: Policy,
        codec: Codec,
        limits: Limits,
        *,
        name: str = "",
        prefix_cache: bool = True,
        run_ahead: bool = False,
        seed: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name = name  # what the model was loaded from
        self.executor = executor
        self.cache = cache
        self.policy = policy
        self.limits = limits
        self.live = LiveTrees(cache, codec, limits, prefix_cache=prefix_cache, clock=clock)
        self.num_steps = 0
        self.last_batch: StepBatch | None = None
        self._recorder = Recorder(self.live, clock)
        self._clock = clock
        self._seed = seed
        self._ids = itertools.count()
        self._arriving: dict[int, Request] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._may_run_ahead = run_ahead
        self._steady: SteadyDecode | None = None
        self._assembly = Assembly(self.live, executor.scratch_slot, clock)
        self._second: SecondModel | None = None
        self._fronts = FrontSteps(self.live, executor)
        self._drafts: DraftSteps | None = None

    def speculate(self, drafter: Drafter, config: SpeculativeConfig) -> None:
        """Let a drafter guess ahead for every branch from now on; tokens stay what they are."""
        self._end_steady()
        if isinstance(drafter, ReadsHidden):
            self.executor.keep_hidden()
        self._assembly.speculator = Speculator(drafter, config, self.live, self._clock)

    def stop_speculating(self) -> None:
        """Ask no drafter any more."""
        self._end_steady()
        self._assembly.speculator = None

    def value_by_head(self, head: OwnHead) -> None:
        """Let a head on the model's hidden states value paths from now on."""
        self.executor.keep_hidden()
        self.live.valuer = self._recorder.head = head

    def value_by_model(self, second: SecondModel) -> None:
        """Let a second model value paths from now on, in the steps of this engine."""
        self.live.valuer = self._second = second

    @property
    def _speculator(self) -> Speculator | None:
        return self._assembly.speculator

    # ── the outside: submit, abort, step ─────────────────────────────────────────────────────────
    def submit(
        self,
        controller: Controller,
        prompt_ids: Sequence[int],
        *,
        prompt: str | None = None,
        seed: int | None = None,
        prompt_logprobs: int | None = None,
        is_pinned: bool = False,
        is_by_hand: bool = False,
        is_valued: bool = False,
    ) -> Request:
        """Queue a request; it runs as `step` is called. Safe to call from any thread.

        With `is_valued` a branch's end is told only when the reward model has valued it. Raises
        InputError when the prompt leaves no room in the context or the pool, or nothing can value.
        """
        self.check_fits(len(prompt_ids))
        if is_valued and self.live.valuer is None:
            got = "an engine without one"
            raise InputError(expected_got("scorer 'reward'", "a reward_model to ask", got))
        request_id = next(self._ids)
        root_seed = mix64(self._seed ^ mix64(request_id)) >> 1 if seed is None else seed
        tree = LogicalTree(list(prompt_ids), prompt or "", root_seed)
        tree[tree.root].state = NodeState.IDLE
        request = Request(
            id=request_id,
            controller=controller,
            tree=tree,
            prompt=prompt,
            arrived_s=self._clock(),
            is_pinned=is_pinned,
            is_by_hand=is_by_hand,
            is_valued=is_valued,
        )
        request.usage.prompt_tokens = len(prompt_ids)
        self._arriving[request_id] = request
        self._inbox.put(lambda: self._accept(request, prompt_logprobs))
        return request

    def find(self, request_id: int) -> Request | None:
        """A request that is not over, by its number. Safe from any thread."""
        # a request is entered among the live ones before it is taken off here
        return self._arriving.get(request_id) or self.live.requests.get(request_id)

    def abort(self, request: Request) -> None:
        """End a request early; its branches are freed at the next step. Safe from any thread."""
        self._inbox.put(
            lambda: self._fail(request, RequestAborted(f"request {request.id} aborted"))
        )

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self.live.tasks) or not self._inbox.empty() or self._is_valuing

    @property
    def _is_valuing(self) -> bool:
        """Whether the second model has anything to do."""
        return self._second is not None and self._second.has_work

    def step(self, *, is_watched: bool = False) -> bool:
        """Run one step of each model. Returns whether anything moved; False: the engine is idle.

        Args:
            is_watched: the caller looks at the trees afterwards. Otherwise tokens of branches that
                go on may be written down later, all at once.
        """
        has_moved = self._step_first(is_watched=is_watched)
        if self._second is None or not self._second.has_work:
            return has_moved
        self._end_steady()
        self._advance(set(self._second.step()))
        return True

    def _step_first(self, *, is_watched: bool) -> bool:
        """A step of the engine's own model."""
        if self._go_on(is_watched=is_watched) or self._go_on_drafting() or self._step_fronts():
            return True
        self._receive()
        self.live.pins.expire()
        if not self.live.tasks:
            return False
        decision = self.policy.decide(self._view())
        builder, ready = self._assembly.assemble(decision, self._fail)
        if not builder.num_rows:
            return self._serve_complete(ready) or self._unblock()
        may_run_ahead = self._may_run_ahead and builder.num_rows == len(ready)
        may_run_ahead = may_run_ahead and not self._is_valuing
        steady = steady_tasks(self.live, self._recorder, ready) if may_run_ahead else None
        batch = self.last_batch = builder.build()
        self.num_steps += 1
        if steady is not None and self._begin_steady(batch, *steady):
            return True
        with self._verifying(batch):
            self._run(builder, batch, ready)
        self._advance({task.request for task, _, _ in ready})
        return True

    def check_fits(self, prompt_tokens: int) -> None:
        """Raise InputError unless a prompt leaves room for a token in context and pool."""
        for limit, what in (
            (self.limits.max_context, "context"),
            (self.limits.num_slots, "KV pool"),
        ):
            if prompt_tokens >= limit:
                allowed = f"fewer than {limit} tokens ({what})"
                raise InputError(expected_got("prompt", allowed, f"{prompt_tokens} tokens"))

    def settle(self) -> None:
        """Carry out what waits in the inbox, aborts among it, without running a step."""
        self._end_steady()
        self._receive()

    def deliver(self, request: Request) -> None:
        """Hand a request's waiting events to its controller now, outside of a step."""
        self._end_steady()
        self._receive()
        self._advance([request])

    # ── receive ──────────────────────────────────────────────────────────────────────────────────
    def _receive(self) -> None:
        """Run what other callers have put into the inbox, with all paths as they were selected."""
        beams.settle(self.live)
        while not self._inbox.empty():
            self._inbox.get()()

    def _accept(self, request: Request, prompt_logprobs: int | None) -> None:
        self.live.requests[request.id] = request
        del self._arriving[request.id]
        if prompt_logprobs is None:
            request.events.append(Started(root=request.tree.root))
            self._advance([request])
        else:
            self.live.reveal(request, prompt_logprobs)

    # ── decide and apply ─────────────────────────────────────────────────────────────────────────
    def _view(self) -> View:
        """Freeze what the policy may know."""
        is_tight = relieve(self.live)
        self._assembly.begin()
        return make_view(self.live, self._clock(), self._assembly.must_wait, is_tight=is_tight)

    def _serve_complete(self, ready: list[tuple[Task, Wanted, bool]]) -> bool:
        """Serve tasks whose tokens are all computed and that ask for no logits, if there are any.

        An append of no tokens is such a task, and the log-probabilities of a prompt of one token.
        """
        if ready:
            self._recorder.record_complete(ready)
            self._advance({task.request for task, _, _ in ready})
        return bool(ready)

    def _unblock(self) -> bool:
        """Nothing could run: free idle paths, then pins, or give up on the oldest request."""
        if not self.live.tasks or self.live.drop_idle(self.limits.num_slots) > 0:
            return bool(self.live.tasks)
        if self._is_valuing:  # what its answers bring may free slots
            return True
        if self.live.pins.yield_one():
            return True
        oldest = min(self.live.tasks.values(), key=lambda task: (task.request.id, task.id))
        needed = self.live.tokens_to_open(oldest)
        error = OutOfSlots(needed, self.cache.available, f"request {oldest.request.id}")
        self._fail(oldest.request, error)
        return True

    # ── steps that run ahead ─────────────────────────────────────────────────────────────────────
    def _begin_steady(self, batch: StepBatch, tasks: list[Grow], draws: list[SampleRow]) -> bool:
        """Start decoding without the books; False where it is not worth it or has no room."""
        self._steady = open_steady(self.live, self._recorder, self.executor, batch, tasks, draws)
        return self._steady is not None

    def _go_on(self, *, is_watched: bool) -> bool:
        """Run a step of the branches that are decoding, unless there is something else to do."""
        steady = self._steady
        if steady is None:
            return False
        if steady.is_over or not self._inbox.empty() or self._is_valuing:
            self._end_steady()
            return False
        began_s = self._clock()
        news = steady.step(is_watched=is_watched)
        self.num_steps += 1
        if self._speculator is not None and self.last_batch is not None:
            self._speculator.judge.note_cost(
                self.last_batch.forest.num_rows, self._clock() - began_s
            )
        if news:
            self._advance(news)
            if not steady.is_current:
                self._end_steady()
        return True

    def _go_on_drafting(self) -> bool:
        """Run a step of the branches that speculate, unless there is something else to do."""
        drafts = self._drafts
        if drafts is None:
            return False
        if not self._inbox.empty() or self._is_valuing:
            self._end_steady()
            return False
        try:
            news = drafts.step()
        finally:
            if drafts.is_over:
                self._drafts = None
        if not drafts.is_over:
            self.last_batch = drafts.batch
            self.num_steps += 1
        self._advance(news)
        return True

    def _step_fronts(self) -> bool:
        """Run a step of the fronts that the step before was of, if there is nothing else to do."""
        if self._is_valuing or not self._inbox.empty():
            return False
        step = self._fronts.assemble()
        if step is None:
            return False
        self.last_batch = step.batch
        self.num_steps += 1
        self._advance(self._fronts.run(step))
        return True

    def _end_steady(self) -> None:
        """Write down what decoding without the books has brought."""
        steady, self._steady = self._steady, None
        drafts, self._drafts = self._drafts, None
        for run in (steady, drafts):
            if run is not None:
                self._advance(run.close())

    # ── the forward pass and after ───────────────────────────────────────────────────────────────
    def _run(
        self, builder: BatchBuilder, batch: StepBatch, ready: list[tuple[Task, Wanted, bool]]
    ) -> None:
        """Compute the step's rows and serve its tasks; the books are kept while the device works.

        Where tokens are all that is wanted, they are drawn in the step itself.
        """
        executor, recorder = self.executor, self._recorder
        draws = recorder.loop_draws(ready, builder.num_rows)
        is_drawn = draws is not None and executor.draw(batch, draws)
        logits = None if is_drawn else executor.run(batch)
        builder.commit()
        charge_step(
            builder.blocks,
            batch,
            self.live.requests,
            token_bytes=executor.kv_bytes_per_token,
            method=executor.method_in_use,
        )
        self._write_fronts()
        if self._may_run_ahead and self._speculator is None:
            self._fronts.prepare([task for task, _, is_complete in ready if is_complete])
        if logits is None and self._begin_drafts(batch, ready):
            return
        if logits is None:
            recorder.record_loop(*executor.collect(), ready)
        else:
            recorder.record(logits, ready, executor.hidden)
        if self._speculator is not None:
            self._speculator.observe(ready, executor.hidden)

    def _begin_drafts(self, batch: StepBatch, ready: list[tuple[Task, Wanted, bool]]) -> bool:
        """Leave a step in flight to those that follow on it, where branches speculate alone."""
        speculator = self._speculator
        if speculator is None or not self._may_run_ahead or self._is_valuing:
            return False
        tasks = draft_tasks(self.live, ready)
        if tasks is None:
            return False
        self._drafts = DraftSteps(
            self.live,
            self._recorder,
            self.executor,
            speculator,
            batch,
            ready,
            tasks,
            self._clock,
            self._fail,
        )
        return True

    def _verifying(self, batch: StepBatch) -> AbstractContextManager[None]:
        """A step whose drafts, if it has any, are settled when it is over."""
        if self._speculator is None:
            return nullcontext()
        return self._speculator.verifying(batch, self.executor.kv_bytes_per_token)

    def _write_fronts(self) -> None:
        """Write down what was selected before this step, while the device computes it."""
        for task in self.live.tasks.values():
            if isinstance(task, Beams):
                beams.write(self.live, task)

    def _advance(self, requests: Sequence[Request] | set[Request]) -> None:
        """Let controllers answer their events until none is left."""
        for request in sorted(requests, key=lambda r: r.id):
            try:
                while request.events and not request.is_done:
                    request.tree.elapsed_s = self._clock() - request.arrived_s
                    events, request.events = request.events, []
                    for action in request.controller.advance(request.tree, events):
                        if request.is_done:
                            break
                        perform(self.live, request, action)
            except Exception as error:  # a user's controller or scorer may raise anything
                self._fail(request, error)
            request.usage.total_s = self._clock() - request.arrived_s
            if request.is_done and self._speculator is not None:
                self._speculator.learn(request)
            if not (request.is_done or request.tasks or request.is_by_hand):
                got = "no action, with nothing under way"
                stalled = InputError(expected_got("controller", "an action or a Finish", got))
                self._fail(request, stalled)

    def _fail(self, request: Request, error: Exception) -> None:
        """End a request with an error; everything else goes on."""
        if request.is_done:
            return
        request.error = error
        request.tree.prune_growing()
        self.live.release(request, keep={request.tree.root})
        request.usage.total_s = self._clock() - request.arrived_s
