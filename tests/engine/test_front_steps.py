"""Steps of fronts alone, assembled as arrays, against the general path: the same to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ramify import LLM, BeamSearchParams, SamplingParams
from ramify.core.outputs import Usage
from ramify.engine.front_steps import FrontSteps
from ramify.engine.request import Request
from ramify.search import Action, BeamSearch, Event, Mark, Prune, Ranked, Select, TreeView
from ramify.search.sample import Sample
from ramify.testing.models import save_tiny_llama

EOS = 7
SHARED = [17, 3, 80, 41, 9, 22, 60, 35, 11, 90, 2, 54]
PROMPTS = [SHARED, [*SHARED[:8], 30, 31], [8], [*SHARED, 12]]
SEARCHES = {
    "fixed length": BeamSearchParams(beam_width=8, max_tokens=20, ignore_eos=True),
    "short ones win": BeamSearchParams(beam_width=8, max_tokens=20, length_penalty=-0.5),
    "first to end": BeamSearchParams(beam_width=5, max_tokens=20, early_stopping=True),
    "all are awaited": BeamSearchParams(
        beam_width=2, max_tokens=20, length_penalty=2.0, early_stopping="never"
    ),
    "wide": BeamSearchParams(beam_width=128, max_tokens=8, length_penalty=0.6),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that may end a text at any token."""
    path = tmp_path_factory.mktemp("ends")
    save_tiny_llama(path, vocab_size=300, eos_token_id=EOS, seed=3)
    return path


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Rows of every step that was taken as arrays."""
    rows: list[int] = []
    run = FrontSteps.run

    def counted(self: FrontSteps, step: object) -> set[Request]:
        rows.append(len(step.batch.token_ids))  # type: ignore[attr-defined]
        return run(self, step)  # type: ignore[arg-type]

    monkeypatch.setattr(FrontSteps, "run", counted)
    yield rows


def open_llm(model: Path, *, run_ahead: bool, num_slots: int = 40_000) -> LLM:
    return LLM(str(model), device="cpu", num_slots=num_slots, run_ahead=run_ahead)


def submit(llm: LLM, params: BeamSearchParams, prompts: Sequence[list[int]]) -> list[Request]:
    return [llm.engine.submit(BeamSearch(params, [EOS]), prompt) for prompt in prompts]


def finish(llm: LLM, requests: Sequence[Request]) -> list[tuple[object, ...]]:
    """All that a user can see of the requests, once they are over."""
    while not all(request.is_done for request in requests):
        llm.engine.step()
        llm.engine.cache.check_integrity()
    llm.engine.settle()
    assert not llm.engine.cache.cursors
    assert llm.engine.cache.available == llm.engine.limits.num_slots
    return [outcome(request) for request in requests]


def outcome(request: Request) -> tuple[object, ...]:
    nodes = [
        (n.id, n.parent, n.token_ids, n.cumulative_logprob, n.state, n.finish_reason, n.score)
        for n in request.tree
    ]
    outputs = None if request.finish is None else tuple(request.finish.outputs)
    return repr(request.error), outputs, nodes, cost(request.usage)


def cost(usage: Usage) -> tuple[int, ...]:
    read = usage.kv_bytes_read, usage.kv_bytes_per_branch
    return (*read, usage.computed_tokens, usage.cached_tokens, usage.steps)


@pytest.mark.parametrize("params", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["alone", "together"])
def test_the_general_paths_bits(
    model: Path, taken: list[int], params: BeamSearchParams, prompts: list[list[int]]
) -> None:
    general = open_llm(model, run_ahead=False)
    wanted = finish(general, submit(general, params, prompts))
    assert not taken
    ahead = open_llm(model, run_ahead=True)
    assert finish(ahead, submit(ahead, params, prompts)) == wanted
    assert max(taken) == params.beam_width * len(prompts)
    assert ahead.engine.num_steps == general.engine.num_steps


def test_what_comes_and_goes_meanwhile(model: Path, taken: list[int]) -> None:
    """Samples beside beams, a prompt that arrives, an abort: arrays before and after."""

    def run(llm: LLM) -> list[tuple[object, ...]]:
        params, sampled = SEARCHES["fixed length"], SamplingParams(n=2, max_tokens=4, seed=1)
        requests = submit(llm, params, PROMPTS[:2])
        requests.append(llm.engine.submit(Sample(sampled), PROMPTS[2], seed=0))
        for step in range(14):
            llm.engine.step()
            if step == 9:
                requests += submit(llm, params, PROMPTS[3:])
            if step == 12:
                llm.engine.abort(requests[1])
        return finish(llm, requests)

    wanted = run(open_llm(model, run_ahead=False))
    assert run(open_llm(model, run_ahead=True)) == wanted
    assert len(set(taken)) > 1 and len(taken) > 10


def test_a_pool_that_the_prefix_cache_fills(model: Path, taken: list[int]) -> None:
    """Room for the next step is made behind the present one; nothing leaks."""
    llm = open_llm(model, run_ahead=True, num_slots=260)
    for token in range(8, 20):
        llm.generate([[token] * 24], SamplingParams(max_tokens=1, temperature=0.0))
    assert llm.engine.cache.num_free < 40
    found = finish(llm, submit(llm, SEARCHES["fixed length"], PROMPTS[:1]))
    assert len(taken) > 10
    general = open_llm(model, run_ahead=False)
    wanted = finish(general, submit(general, SEARCHES["fixed length"], PROMPTS[:1]))
    assert found[0][:2] == wanted[0][:2]


def test_a_pool_too_small_for_arrays_takes_the_general_path(model: Path) -> None:
    llm = open_llm(model, run_ahead=True, num_slots=150)
    found = finish(llm, submit(llm, SEARCHES["fixed length"], PROMPTS))
    roomy = open_llm(model, run_ahead=False)
    wanted = finish(roomy, submit(roomy, SEARCHES["fixed length"], PROMPTS))
    assert [(error, outputs) for error, outputs, *_ in found] == [
        (error, outputs) for error, outputs, *_ in wanted
    ]


class Marking:
    """Beam search that adds another action to every selection."""

    def __init__(self, params: BeamSearchParams) -> None:
        self._search = BeamSearch(params, [EOS])

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        return [*self._search.advance(tree, events), Mark(node=tree.root, score=1.0)]


def test_actions_behind_a_selection_find_its_paths(model: Path, taken: list[int]) -> None:
    params = SEARCHES["short ones win"]
    llm = open_llm(model, run_ahead=True)
    request = llm.engine.submit(Marking(params), PROMPTS[0])
    while request.beams is None:
        llm.engine.step()
    while not request.is_done:
        beams = request.beams
        assert beams is None or beams.is_edited
        llm.engine.step()
    assert not taken
    (plain,) = open_llm(model, run_ahead=True).beam_search([PROMPTS[0]], params)
    assert request.finish is not None
    ends = [request.tree.completion_ids(node) for node in request.finish.outputs]
    assert ends == [beam.token_ids for beam in plain.outputs]


class Pruning:
    """Beam search that holds a beam nobody goes on from, and prunes it a step later."""

    def __init__(self, params: BeamSearchParams) -> None:
        self._search = BeamSearch(params, [EOS])
        self._held: int | None = None
        self.num_pruned = 0

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        actions = list(self._search.advance(tree, events))
        before, self._held = self._held, None
        for event in events:
            select = actions[0]
            if isinstance(event, Ranked) and isinstance(select, Select) and select.nodes:
                dead = set(event.nodes) - set(select.nodes)
                self._held = min(dead, default=None)
                actions[0] = replace(select, held=dead & {self._held})
        self.num_pruned += before is not None
        return actions if before is None else [Prune(node=before), *actions]


def test_what_was_held_may_be_pruned(model: Path, taken: list[int]) -> None:
    params = SEARCHES["fixed length"]
    llm, search = open_llm(model, run_ahead=True), Pruning(params)
    request = llm.engine.submit(search, PROMPTS[0])
    finish(llm, [request])
    assert search.num_pruned > 5 and taken
    (plain,) = open_llm(model, run_ahead=False).beam_search([PROMPTS[0]], params)
    assert request.error is None and request.finish is not None
    ends = [request.tree.completion_ids(node) for node in request.finish.outputs]
    assert ends == [beam.token_ids for beam in plain.outputs]


def test_an_abort_right_behind_the_first_selection(model: Path) -> None:
    llm = open_llm(model, run_ahead=True)
    (request,) = submit(llm, SEARCHES["fixed length"], PROMPTS[:1])
    while request.beams is None:
        llm.engine.step()
    llm.engine.abort(request)
    llm.engine.settle()
    assert request.error is not None and not llm.engine.cache.cursors
    llm.engine.cache.check_integrity()


def test_a_step_that_fails_leaves_no_slot_behind(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = open_llm(model, run_ahead=True)
    (request,) = submit(llm, SEARCHES["fixed length"], PROMPTS[:1])
    for _ in range(6):
        llm.engine.step()
    run: Callable[..., object] = llm.engine.executor.run

    def broken(*_: object) -> object:
        raise MemoryError("no room for logits")

    monkeypatch.setattr(llm.engine.executor, "run", broken)
    with pytest.raises(MemoryError):
        llm.engine.step()
    llm.engine.cache.check_integrity()
    monkeypatch.setattr(llm.engine.executor, "run", run)
    (found,) = finish(llm, [request])
    general = open_llm(model, run_ahead=False)
    (wanted,) = finish(general, submit(general, SEARCHES["fixed length"], PROMPTS[:1]))
    assert found == wanted
