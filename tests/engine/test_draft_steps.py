"""Steps of drafts, launched before those before are written down, against the general path."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from ramify import LLM, BeamSearchParams, SamplingParams
from ramify.core.outputs import Usage
from ramify.engine.draft_steps import DraftSteps
from ramify.engine.request import Request
from ramify.engine.speculation.draft import DraftContext, DraftTree
from ramify.search.beam import BeamSearch
from ramify.search.sample import Sample
from ramify.testing.models import save_tiny_llama

EOS = 7
PROMPTS = [[17, 3, 80, 41, 9, 22, 60, 35], [8], [17, 3, 80, 41, 30]]
PARAMS = {
    "greedy": SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True),
    "sampled": SamplingParams(
        n=3, temperature=0.8, top_p=0.9, max_tokens=40, seed=3, ignore_eos=True
    ),
    "stops": SamplingParams(n=2, temperature=0.9, max_tokens=50, min_tokens=5, seed=4),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that may end a text at any token."""
    path = tmp_path_factory.mktemp("ends")
    save_tiny_llama(path, vocab_size=300, eos_token_id=EOS, seed=3)
    return path


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Rows of every step that was launched ahead of the books."""
    rows: list[int] = []
    step = DraftSteps.step

    def counted(self: DraftSteps) -> set[Request]:
        news = step(self)
        if not self.is_over:
            rows.append(len(self.batch.token_ids))
        return news

    monkeypatch.setattr(DraftSteps, "step", counted)
    yield rows


class Guessing:
    """Right more or less often, in trees of ever other shapes, now and then without a guess."""

    def __init__(self, paths: Sequence[Sequence[int]], *, same_shape: bool = False) -> None:
        self._paths = [list(path) for path in paths]
        self._same_shape = same_shape
        self.num_calls = 0

    def propose(self, contexts: Sequence[DraftContext]) -> list[DraftTree]:
        self.num_calls += 1
        return [self._draft(context) for context in contexts]

    def _draft(self, context: DraftContext) -> DraftTree:
        known, end = context.token_ids.tolist(), len(context.token_ids)
        rng = np.random.default_rng(end)
        if not self._same_shape and rng.integers(6) == 0:
            return DraftTree()
        right = next((path[end:] for path in self._paths if path[:end] == known), [])
        size, wrong = (8, 2) if self._same_shape else rng.integers(1, 9, 2)
        right = [*right, *([1] * 9)][:size]
        # another line first, so that what is accepted is not the first one
        lines = [[(right[0] + 1) % 300, *[5] * int(wrong)], right, [*right[:2], 6, 6]]
        return DraftTree.from_continuations(lines, context.max_tokens, context.max_depth)

    def learn(self, token_ids: Sequence[int]) -> None:
        """Nothing."""


class Looking(Guessing):
    """Guesses only where it was shown the state of the newest token."""

    seen: dict[Hashable, int]

    def observe(self, branches: Sequence[tuple[Hashable, int]], hidden: Tensor) -> None:
        assert len(hidden) == len(branches)
        self.seen = dict(branches)

    def propose(self, contexts: Sequence[DraftContext]) -> list[DraftTree]:
        self.num_calls += 1
        shown = [self.seen.get(c.branch) == len(c.token_ids) for c in contexts]
        return [self._draft(c) if s else DraftTree() for c, s in zip(contexts, shown, strict=True)]


def open_llm(
    model: Path,
    drafter: Guessing | None = None,
    *,
    run_ahead: bool = True,
    num_slots: int = 4000,
    **fields: object,
) -> LLM:
    config = {"method": "custom", "drafter": drafter, "num_speculative_tokens": 12, **fields}
    return LLM(
        str(model),
        device="cpu",
        num_slots=num_slots,
        run_ahead=run_ahead,
        method="flatten",  # as a GPU has one for all steps
        speculative_config=None if drafter is None else {"adaptive": False, **config},
    )


def submit(llm: LLM, params: SamplingParams, prompts: Sequence[list[int]]) -> list[Request]:
    return [llm.engine.submit(Sample(params), p, seed=i) for i, p in enumerate(prompts)]


def under_way(
    model: Path, paths: Sequence[Sequence[int]], taken: Sequence[int]
) -> tuple[LLM, list[Request]]:
    """Greedy requests in the middle of a run of steps ahead of the books."""
    llm = open_llm(model, Guessing(paths))
    requests = submit(llm, PARAMS["greedy"], PROMPTS)
    while len(taken) < 3:
        llm.engine.step()
    return llm, requests


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
    nodes = [(n.id, n.token_ids, n.state, n.finish_reason, n.stop_reason) for n in request.tree]
    logprobs = [round(n.cumulative_logprob, 3) for n in request.tree]
    return repr(request.error), nodes, logprobs


def cost(usage: Usage) -> tuple[int, ...]:
    drafts = usage.verified_steps, usage.drafted_tokens, usage.accepted_tokens
    read = usage.kv_bytes_read, usage.kv_bytes_per_branch
    return (*drafts, *read, usage.computed_tokens, usage.generated_tokens, usage.steps)


def plain(model: Path, params: SamplingParams) -> tuple[list[tuple[object, ...]], list[list[int]]]:
    """What plain decoding gives, and its paths."""
    llm = open_llm(model, run_ahead=False)
    requests = submit(llm, params, PROMPTS)
    found = finish(llm, requests)
    paths = [
        [*request.prompt_ids, *request.tree.completion_ids(node)]
        for request in requests
        for node in request.tree[request.tree.root].children
    ]
    return found, paths


@pytest.mark.parametrize("same_shape", [False, True])
@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
def test_tokens_and_costs_are_the_general_paths(
    model: Path, taken: list[int], params: SamplingParams, same_shape: bool
) -> None:
    wanted, paths = plain(model, params)
    costs = []
    for run_ahead in (False, True):
        llm = open_llm(model, Guessing(paths, same_shape=same_shape), run_ahead=run_ahead)
        requests = submit(llm, params, PROMPTS)
        assert finish(llm, requests) == wanted
        assert run_ahead or not taken
        costs.append(([cost(request.usage) for request in requests], llm.engine.num_steps))
    assert costs[0] == costs[1]
    assert len(taken) >= 3
    assert sum(accepted for _, _, accepted, *_ in costs[1][0]) > 20


def test_a_drafter_is_shown_the_states_of_the_newest_tokens(model: Path, taken: list[int]) -> None:
    wanted, paths = plain(model, PARAMS["greedy"])
    accepted = []
    for drafter in (Looking(paths, same_shape=True), Guessing(paths, same_shape=True)):
        llm = open_llm(model, drafter)
        requests = submit(llm, PARAMS["greedy"], PROMPTS)
        assert finish(llm, requests) == wanted
        accepted.append(sum(request.usage.accepted_tokens for request in requests))
    assert accepted[0] == accepted[1] > 0 and taken


@pytest.mark.parametrize("num_slots", [90, 140, 260])
def test_small_pools(model: Path, taken: list[int], num_slots: int) -> None:
    wanted, paths = plain(model, PARAMS["sampled"])
    llm = open_llm(model, Guessing(paths), num_slots=num_slots)
    assert finish(llm, submit(llm, PARAMS["sampled"], PROMPTS)) == wanted


def test_what_comes_and_goes_meanwhile(model: Path, taken: list[int]) -> None:
    """Prompts and beams that arrive, an abort, a look at every step."""
    params = PARAMS["greedy"]
    wanted, paths = plain(model, params)
    llm = open_llm(model, Guessing(paths))
    requests = submit(llm, params, PROMPTS)
    for step in range(12):
        llm.engine.step(is_watched=step % 2 == 0)
        if step == 6:
            beams = BeamSearch(BeamSearchParams(beam_width=3, max_tokens=4), [EOS])
            requests.append(llm.engine.submit(beams, PROMPTS[0]))
        if step == 10:
            llm.engine.abort(requests[1])
    found = finish(llm, requests)
    assert found[0] == wanted[0] and found[2] == wanted[2]
    assert "aborted" in str(found[1][0]) and requests[3].finish is not None
    assert len(taken) > 3


def test_tokens_are_seen_after_every_step(model: Path, taken: list[int]) -> None:
    _, paths = plain(model, PARAMS["greedy"])
    llm = open_llm(model, Guessing(paths, same_shape=True))
    lengths = [
        len(state.outputs[0].token_ids) for state in llm.stream(PROMPTS[0], PARAMS["greedy"])
    ]
    assert lengths == sorted(lengths) and lengths[-1] == 60 and 5 < len(set(lengths)) < 40
    assert len(taken) > 5


@pytest.mark.parametrize("at", [2, 5])
def test_a_drafter_that_raises_ends_its_requests_alone(model: Path, at: int) -> None:
    wanted, paths = plain(model, PARAMS["greedy"])

    class Raising(Guessing):
        def propose(self, contexts: Sequence[DraftContext]) -> list[DraftTree]:
            if self.num_calls == at:
                self.num_calls += 1
                raise ZeroDivisionError("of the user's")
            return super().propose(contexts)

    llm = open_llm(model, Raising(paths))
    found = finish(llm, submit(llm, PARAMS["greedy"], PROMPTS))
    assert all("ZeroDivisionError" in str(error) for error, *_ in found)
    llm = open_llm(model, Raising(paths))
    first = submit(llm, PARAMS["greedy"], PROMPTS[:1])
    while not first[0].is_done:
        llm.engine.step()
    tokens = first[0].tree[1].token_ids
    assert tokens == paths[0][len(PROMPTS[0]) :][: len(tokens)], "what was drawn is kept"
    assert finish(llm, submit(llm, PARAMS["greedy"], PROMPTS)) == wanted


def test_a_launch_that_fails_loses_nothing(
    model: Path, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, paths = plain(model, PARAMS["greedy"])
    llm, requests = under_way(model, paths, taken)
    draw: Callable[..., bool] = llm.engine.executor.draw

    def broken(*_: object) -> bool:
        raise MemoryError("no room for logits")

    monkeypatch.setattr(llm.engine.executor, "draw", broken)
    with pytest.raises(MemoryError):
        llm.engine.step()
    llm.engine.cache.check_integrity()
    monkeypatch.setattr(llm.engine.executor, "draw", draw)
    assert finish(llm, requests) == wanted


def test_books_that_fail_lose_no_slot(
    model: Path, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, paths = plain(model, PARAMS["greedy"])
    llm, requests = under_way(model, paths, taken)

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(DraftSteps, "_book", broken)
        with pytest.raises(KeyboardInterrupt):
            llm.engine.step()
    llm.engine.cache.check_integrity()
    assert finish(llm, requests) == wanted


def test_drafts_that_do_not_pay_end_the_run(model: Path, taken: list[int]) -> None:
    wanted, _ = plain(model, PARAMS["greedy"])
    llm = open_llm(model, Guessing([], same_shape=True), adaptive=True)
    assert finish(llm, submit(llm, PARAMS["greedy"], PROMPTS)) == wanted
    assert 0 < len(taken) < 40
