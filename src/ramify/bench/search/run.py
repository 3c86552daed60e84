"""How much time do node handles save over resending?  (`ramify bench search`)

One engine, one model, the same prompts and seeds: each search runs by handles and as a client that
resends. Runs start with an empty cache; one of each is not timed; forms are interleaved. The draws
are the same, so the trees must be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ramify import LLM
from ramify.bench.env import environment
from ramify.bench.interval import mean_interval
from ramify.bench.search.client import ResendSearch
from ramify.bench.search.prompts import text_prompt
from ramify.bench.search.rows import HANDLES, RESEND, RESEND_N, SearchRow
from ramify.bench.search.searches import SearchShape, make_search
from ramify.bench.timer import interleaved, median_of
from ramify.core.errors import InputError, expected_got

FORMS = (HANDLES, RESEND, RESEND_N)
Grown = dict[tuple[int, ...], tuple[int, ...]]
"""Tokens of a tree's nodes by their places."""


@dataclass(frozen=True, kw_only=True)
class SearchBench:
    """What is measured. Raises InputError for no algorithm or no repeat."""

    llm: LLM
    model_name: str
    algorithms: Sequence[str]
    shape: SearchShape
    repeats: int = 5
    seed: int = 0
    commit: str | None = None  # of the sources, where they are a copy
    progress: Callable[[str], None] = lambda text: None
    done: Callable[[SearchRow], None] = lambda row: None  # gets every row as soon as it is there

    def __post_init__(self) -> None:
        if not self.algorithms or self.repeats < 1:
            raise InputError(expected_got("algorithms, repeats", "at least one of each", "none"))
        limit = self.llm.engine.limits.max_context
        if self.shape.longest_path > limit:
            got = f"{self.shape.longest_path} tokens"
            raise InputError(expected_got("path", f"at most {limit} tokens", got))


@dataclass(frozen=True, kw_only=True)
class SearchRun:
    """One search."""

    wall_s: float
    steps: int
    requests: int
    computed_tokens: int
    tree: Grown

    @property
    def generated_tokens(self) -> int:
        """Tokens of all branches."""
        return sum(map(len, self.tree.values()))

    @property
    def prefill_tokens(self) -> int:
        """Tokens computed, but for no branch's next one: a branch computes all but its last."""
        return self.computed_tokens - self.generated_tokens + len(self.tree)


def bench_searches(bench: SearchBench) -> list[SearchRow]:
    """Run every algorithm in every form, one row each.

    Raises InputError for an unknown algorithm or a model without a tokenizer, OutOfSlots for a pool
    that does not hold the trees.
    """
    rows = []
    for algorithm in bench.algorithms:
        runs: dict[str, list[SearchRun]] = {form: [] for form in FORMS}
        for form in FORMS:
            run_once(bench, algorithm, form, seed=bench.seed)
        turns = dict.fromkeys(FORMS, 0)
        for form in interleaved(FORMS, bench.repeats):
            turns[form] += 1
            runs[form].append(run_once(bench, algorithm, form, seed=bench.seed + turns[form]))
        for form in FORMS:
            row = _row(bench, algorithm, form, runs)
            bench.progress(f"{algorithm} by {form}: {row.wall_s * 1e3:.1f} ms")
            bench.done(row)
            rows.append(row)
    return rows


def run_once(bench: SearchBench, algorithm: str, form: str, *, seed: int) -> SearchRun:
    """One search over an empty cache; its time begins with the prompt's text."""
    llm, engine = bench.llm, bench.llm.engine
    prompt = text_prompt(llm, bench.shape.prompt_tokens, seed)
    controller = make_search(algorithm, bench.shape)
    engine.settle()
    engine.cache.evict(engine.limits.num_slots)
    steps, begin = engine.num_steps, perf_counter()
    if form == HANDLES:
        result = llm.search(prompt, controller=controller, seed=seed)
        wall_s = perf_counter() - begin
        place_of = {node.id: place for place, node in enumerate(result.tree)}
        parents = [None if n.parent is None else place_of[n.parent] for n in result.tree]
        nodes = [node.token_ids for node in result.tree]
        requests, computed = 1, result.usage.computed_tokens
    else:
        client = ResendSearch(llm, controller, prompt, seed=seed, is_split=form == RESEND)
        client.run()
        wall_s = perf_counter() - begin
        parents, nodes = [n.parent for n in client.tree], [n.token_ids for n in client.tree]
        requests, computed = client.server.num_requests, client.server.computed_tokens
    return SearchRun(
        wall_s=wall_s,
        steps=engine.num_steps - steps,
        requests=requests,
        computed_tokens=computed,
        tree=tokens_by_place(parents, nodes),
    )


def tokens_by_place(
    parents: Sequence[int | None], tokens: Sequence[Sequence[int]]
) -> dict[tuple[int, ...], tuple[int, ...]]:
    """A tree's tokens by place: the ranks among siblings that lead from the root to a node.

    Args:
        parents: of each node, parents before children; None for the root.
    """
    places: list[tuple[int, ...]] = []
    num_below = [0] * len(parents)
    for parent in parents:
        if parent is None:
            places.append(())
            continue
        places.append((*places[parent], num_below[parent]))
        num_below[parent] += 1
    return {place: tuple(own) for place, own in zip(places, tokens, strict=True) if place}


def count_apart(own: Grown, other: Grown) -> int:
    """Places at which two trees do not hold the same tokens."""
    return sum(own.get(place) != other.get(place) for place in own.keys() | other.keys())


def _row(
    bench: SearchBench, algorithm: str, form: str, runs: dict[str, list[SearchRun]]
) -> SearchRow:
    own, handles, config = runs[form], runs[HANDLES], bench.llm.config
    pairs = list(zip(handles, own, strict=True))
    saving: dict[str, Any] = dict.fromkeys(("saving", "saving_low", "saving_high"))
    if form != HANDLES:
        found = mean_interval([1 - by_handles.wall_s / run.wall_s for by_handles, run in pairs])
        saving = dict(zip(saving, found, strict=True))
    first = own[0]
    return SearchRow(
        question="search",
        algorithm=algorithm,
        form=form,
        model=bench.model_name,
        method=config.method,
        backend=bench.llm.engine.executor.attention.backend,
        device=config.device,
        dtype=config.dtype,
        width=bench.shape.width,
        depth=bench.shape.depth,
        step_tokens=bench.shape.step_tokens,
        prompt_tokens=bench.shape.prompt_tokens,
        repeats=bench.repeats,
        wall_s=median_of([run.wall_s for run in own]),
        steps=first.steps,
        requests=first.requests,
        generated_tokens=first.generated_tokens,
        computed_tokens=first.computed_tokens,
        prefill_tokens=first.prefill_tokens,
        **saving,
        num_nodes=sum(len(run.tree) for run in own),
        num_nodes_apart=sum(count_apart(run.tree, other.tree) for other, run in pairs),
        environment=environment(bench.commit),
    )
