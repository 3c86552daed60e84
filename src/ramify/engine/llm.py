"""The user's face of the engine: generate, stream, search, beam search, score, trees by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

from ramify.core.config import EngineConfig
from ramify.core.errors import ConfigError, InputError, expected_got
from ramify.core.outputs import RequestOutput, ScoreOutput, SearchResult
from ramify.core.params import BeamSearchParams, SamplingParams
from ramify.engine.arguments import (
    Prompt,
    Prompts,
    check_beams,
    check_branches,
    check_sampling,
    params_for,
    prompts_of,
)
from ramify.engine.build import build_engine
from ramify.engine.exporting import export_result
from ramify.engine.handles import Manual, NodeHandle
from ramify.engine.memory import num_parameters
from ramify.engine.part import model_dir_of
from ramify.engine.request import Request
from ramify.engine.results import beam_output, request_output, search_result
from ramify.engine.stream import Stream
from ramify.export import ExportedTree
from ramify.models import Shard, read_config
from ramify.search.beam import BeamSearch
from ramify.search.continuations import Continuations
from ramify.search.controller import Controller
from ramify.search.registry import make_controller
from ramify.search.rewards import Rewards
from ramify.search.sample import Sample
from ramify.search.scorer import REWARD, NodeScorer
from ramify.search.tree import LogicalTree

OnStep: TypeAlias = Callable[[LogicalTree], None]


class LLM:
    """A model with its engine. All calls share one loop, one KV pool and one prefix cache.

    Args:
        model: a bundled name, a Hugging Face directory, or a hub id.
        settings: fields of `EngineConfig` (device, dtype, load_format, method, num_slots, ...).
    Raises:
        ConfigError: a setting or a file of the model is wrong; the message names it.
    Attributes:
        startup: the seconds and bytes that starting took.

    With `tensor_parallel_size` above 1 other processes hold parts of the model; they end with
    `close`, at the end of a `with` block, or with this process. Scripts that make such an LLM need
    `if __name__ == "__main__":` around it, as for every use of multiprocessing.

    Not thread-safe, except that `abort` may be called from any thread.
    """

    def __init__(self, model: str = "ramify-tiny", **settings: Any) -> None:
        known = [f.name for f in fields(EngineConfig)]
        for name in settings:
            if name not in known:
                raise ConfigError(expected_got("setting", f"one of {', '.join(known)}", repr(name)))
        config = EngineConfig(model=str(model), **settings)
        self.engine, self.config, self.startup = build_engine(config)

    def close(self) -> None:
        """End other processes that hold parts of the model. Nothing can be run afterwards."""
        self.engine.executor.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ── one call, all results ────────────────────────────────────────────────────────────────────
    def generate(
        self,
        prompts: Prompts,
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """Sample `params.n` completions of each prompt.

        Args:
            prompts: a text, a list of token ids, or a list of either.
            params: one for all prompts, or one for each.
        Returns:
            One output per prompt, in order. A request that failed on its own (for instance out of
            slots) says so in `error`; the others are complete.
        Raises:
            InputError: a prompt or a parameter is wrong; nothing was run.
        """
        batch = prompts_of(self.engine.live.codec, prompts)
        each = params_for(len(batch), params)
        for (_, ids), one in zip(batch, each, strict=True):
            check_sampling(self.engine, ids, one)
        requests = [
            self._submit(Sample(one), text, ids, one)
            for (text, ids), one in zip(batch, each, strict=True)
        ]
        self._run(requests)
        return [request_output(request) for request in requests]

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Stream:
        """Sample completions of one prompt and watch them grow. See `Stream`."""
        params = params or SamplingParams()
        ((text, ids),) = prompts_of(self.engine.live.codec, [prompt])
        check_sampling(self.engine, ids, params)
        request = self._submit(Sample(params), text, ids, params)
        return Stream(self.engine, request, params.stop_strings)

    def abort(self, request_id: int) -> bool:
        """End a request early; returns whether it was still alive. Safe from any thread."""
        request = self.engine.find(request_id)
        if request is not None:
            self.engine.abort(request)
        return request is not None

    def beam_search(
        self, prompts: Prompts, params: BeamSearchParams | None = None
    ) -> list[RequestOutput]:
        """Beam search; outputs are the best beams, best first, with `score`.

        Raises InputError as `generate` does.
        """
        params = params or BeamSearchParams()
        check_beams(self.engine, params)
        batch = prompts_of(self.engine.live.codec, prompts)
        for _, ids in batch:
            check_branches(self.engine, len(ids), params.beam_width)
        eos = self.engine.limits.eos_token_ids
        searches = [BeamSearch(params, eos) for _ in batch]
        requests = [
            self.engine.submit(search, ids, prompt=text)
            for search, (text, ids) in zip(searches, batch, strict=True)
        ]
        self._run(requests)
        return [
            beam_output(request, search, self.engine.live.codec)
            for request, search in zip(requests, searches, strict=True)
        ]

    def score(
        self, prompt: Prompt, continuations: Sequence[Prompt], *, logprobs: int = 0
    ) -> list[ScoreOutput]:
        """Log-probability of each continuation of a prompt, token by token.

        The prompt is computed once, or not at all where the cache has it. `logprobs` asks for
        that many alternatives at each token. Raises InputError on an empty or too long one.
        """
        ((text, ids),) = prompts_of(self.engine.live.codec, [prompt])
        codec = self.engine.live.codec
        given = [codec.encode(c, name="continuation") for c in continuations]
        for tokens in given:
            if not tokens:
                raise InputError(expected_got("continuation", "at least one token", "none"))
            limit = self.engine.limits.max_context
            if len(ids) + len(tokens) > limit:
                got = f"{len(ids)} + {len(tokens)} tokens"
                raise InputError(expected_got("continuation", f"a path <= {limit} tokens", got))
        request = self.engine.submit(Continuations(given, logprobs), ids, prompt=text)
        self._run([request])
        self._raise(request)
        assert request.finish is not None, "a request without error has finished"
        nodes = [request.tree[node] for node in request.finish.outputs]
        return [
            ScoreOutput(token_ids=list(node.token_ids), token_logprobs=list(node.logprobs or ()))
            for node in nodes
        ]

    def reward(self, prompt: Prompt, continuations: Sequence[Prompt]) -> list[float]:
        """What the reward model makes of a prompt with each continuation, which may be empty.

        The prompt is computed once, or not at all where the cache of the model that reads it has
        it. Raises InputError without a `reward_model`, or when a text does not fit it.
        """
        ((text, ids),) = prompts_of(self.engine.live.codec, [prompt])
        given = [c if isinstance(c, str) else tuple(c) for c in continuations]
        for tokens in given:
            self.engine.live.codec.encode(tokens, name="continuation")
        controller = Rewards(given)
        request = self.engine.submit(controller, ids, prompt=text)
        self._run([request])
        self._raise(request)
        if controller.failure is not None:
            wanted = "a text that fits the reward model"
            raise InputError(expected_got("continuation", wanted, controller.failure))
        return [controller.values[index] for index in range(len(given))]

    def search(
        self,
        prompt: Prompt,
        algorithm: str = "best_of_n",
        *,
        controller: Controller | None = None,
        seed: int | None = None,
        on_step: OnStep | None = None,
        **options: Any,
    ) -> SearchResult:
        """Grow a tree by a search algorithm.

        Args:
            prompt: text or token ids.
            algorithm: a name that `make_controller` knows; `options` are its arguments
                (params, scorer, judge, budget, ...), where scorer="reward" asks the reward model.
                Ignored when a `controller` is given, but for such a scorer: the controller then
                finds the reward of a branch that ended in the tree.
            controller: your own algorithm; one object serves one search.
            seed: root seed; default `params.seed` of the options, else the engine's.
            on_step: called after every engine step with the live tree, to watch it grow.
        Raises:
            InputError: a wrong argument. OutOfSlots: the pool cannot hold a single branch.
            Whatever a scorer or controller of yours raises comes out unchanged.
        """
        ((text, ids),) = prompts_of(self.engine.live.codec, [prompt])
        if options.get("scorer") == "reward":
            options["scorer"] = REWARD
        scorer = options.get("scorer")
        is_valued = isinstance(scorer, NodeScorer) and scorer.reads_reward
        if controller is None:
            controller = make_controller(algorithm, **self._search_options(algorithm, options))
        params = options.get("params")
        if isinstance(params, SamplingParams):
            check_sampling(self.engine, ids, params)
            seed = params.seed if seed is None else seed
        elif isinstance(params, BeamSearchParams):
            check_beams(self.engine, params)
        request = self.engine.submit(controller, ids, prompt=text, seed=seed, is_valued=is_valued)
        self._run([request], on_step)
        self._raise(request)
        return search_result(request)

    def tree(self, prompt: Prompt, *, seed: int | None = None, pin: bool = False) -> NodeHandle:
        """Open a tree to grow by hand; returns its root. `pin` keeps its KV in the pool."""
        ((text, ids),) = prompts_of(self.engine.live.codec, [prompt])
        request = self.engine.submit(
            Manual(), ids, prompt=text, seed=seed, is_pinned=pin, is_by_hand=True
        )
        self.engine.deliver(request)
        return NodeHandle(self.engine, request, request.tree.root)

    def export(self, result: SearchResult | RequestOutput) -> ExportedTree:
        """The tree of a result of this model as a document to save, load and show."""
        return export_result(self.engine, result)

    def info(self) -> dict[str, object]:
        """The settings in use and why: device, dtype, pool, attention backend."""
        attention = self.engine.executor.attention
        settings = {f.name: getattr(self.config, f.name) for f in fields(EngineConfig)}
        return {
            **settings,
            "architecture": self.engine.executor.model.config.architecture,
            "parameters": num_parameters(read_config(model_dir_of(self.config.model)), Shard()),
            "kv_bytes_per_token": self.engine.executor.kv_bytes_per_token,
            "attention_backend": attention.backend,
            "attention_backend_reason": attention.backend_reason,
        }

    # ── running ──────────────────────────────────────────────────────────────────────────────────
    def _submit(
        self, controller: Controller, text: str | None, ids: list[int], params: SamplingParams
    ) -> Request:
        return self.engine.submit(
            controller,
            ids,
            prompt=text,
            seed=params.seed,
            prompt_logprobs=params.prompt_logprobs,
        )

    def _run(self, requests: Sequence[Request], on_step: OnStep | None = None) -> None:
        """Step the engine until the requests are done; an interrupt aborts them."""
        try:
            while not all(request.is_done for request in requests):
                self.engine.step(is_watched=on_step is not None)
                if on_step is not None:
                    on_step(requests[0].tree)
        except BaseException:
            for request in requests:
                self.engine.abort(request)
            self.engine.settle()
            raise

    @staticmethod
    def _raise(request: Request) -> None:
        if request.error is not None:
            raise request.error

    def _search_options(self, algorithm: str, options: dict[str, Any]) -> dict[str, Any]:
        """Add what an algorithm needs to know of the model."""
        if algorithm in ("beam", "diverse_beam"):
            return {"eos_token_ids": self.engine.limits.eos_token_ids, **options}
        return options
