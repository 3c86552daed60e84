"""Beams in company, in parts, under pressure and cut short. Alone they are held against
transformers in test_oracle.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from ramify import LLM, BeamSearchParams, InputError, OutOfSlots, RequestAborted, SamplingParams
from ramify.core.outputs import RequestOutput
from ramify.core.structured import StructuredOutput
from ramify.engine import beams
from ramify.engine.request import Request
from ramify.search import Action, BeamSearch, Event, Finish, Prune, Select, TreeView
from ramify.search.sample import Sample
from ramify.search.tree import NodeState

PROMPTS = [[5, 17, 3], [8], list(range(1, 40))]
PARAMS = BeamSearchParams(beam_width=6, max_tokens=12, num_return=4)


def beams_of(output: RequestOutput) -> list[tuple[list[int], float | None]]:
    return [(beam.token_ids, beam.score) for beam in output.outputs]


def assert_same_beams(found: RequestOutput, wanted: RequestOutput) -> None:
    assert [ids for ids, _ in beams_of(found)] == [ids for ids, _ in beams_of(wanted)]
    scores = [score for _, score in beams_of(wanted)]
    assert [score for _, score in beams_of(found)] == pytest.approx(scores, abs=1e-5)


def alone(make_llm: Callable[..., LLM], params: BeamSearchParams = PARAMS) -> list[RequestOutput]:
    return [make_llm().beam_search([prompt], params)[0] for prompt in PROMPTS]


def run(llm: LLM, requests: Sequence[Request]) -> None:
    while not all(request.is_done for request in requests):
        llm.engine.step()
        llm.engine.cache.check_integrity()


@pytest.mark.parametrize("policy", ["fcfs", "prefill_first"])
@pytest.mark.parametrize("max_rows", [4, 64], ids=["parts", "whole"])
def test_the_same_beams_beside_other_requests(
    make_llm: Callable[..., LLM], policy: str, max_rows: int
) -> None:
    wanted = alone(make_llm)
    llm = make_llm(policy=policy, max_rows=max_rows)
    sampled = SamplingParams(n=3, max_tokens=9, temperature=0.0)
    (greedy,) = make_llm().generate([PROMPTS[0]], sampled)
    requests = []
    for prompt in PROMPTS:
        requests.append(llm.engine.submit(BeamSearch(PARAMS), prompt))
        requests.append(llm.engine.submit(Sample(sampled), PROMPTS[0], seed=0))
    run(llm, requests)
    for request, output in zip(requests[::2], wanted, strict=True):
        assert request.finish is not None
        ends = [request.tree.completion_ids(node) for node in request.finish.outputs]
        assert ends == [ids for ids, _ in beams_of(output)]
    for request in requests[1::2]:
        assert request.tree.completion_ids(1) == greedy.outputs[0].token_ids


def test_ranked_in_parts(make_llm: Callable[..., LLM], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = alone(make_llm)
    monkeypatch.setattr(beams, "MAX_RANKED", 4)
    for found, one in zip(make_llm().beam_search(PROMPTS, PARAMS), wanted, strict=True):
        assert_same_beams(found, one)


def test_preempted_beams_are_computed_again(make_llm: Callable[..., LLM]) -> None:
    """Two searches in a pool that holds one of them with ease."""
    wanted = alone(make_llm)
    for num_slots in (80, 110):
        llm = make_llm(num_slots=num_slots, prefix_cache=False)
        found = llm.beam_search(PROMPTS, PARAMS)
        assert [output.error for output in found] == [None] * 3
        for output, one in zip(found, wanted, strict=True):
            assert_same_beams(output, one)
        if num_slots == 80:
            assert sum(output.usage.preemptions for output in found) > 0


@pytest.mark.gpu
def test_a_gpu_finds_the_same_beams(make_llm: Callable[..., LLM]) -> None:
    """Alone, where a step is a graph, and together."""
    wanted = alone(make_llm)
    llm = make_llm(device="cuda", dtype="float32")
    found = [llm.beam_search([prompt], PARAMS)[0] for prompt in PROMPTS]
    for output, one in zip([*found, *llm.beam_search(PROMPTS, PARAMS)], wanted * 2, strict=True):
        assert [ids for ids, _ in beams_of(output)] == [ids for ids, _ in beams_of(one)]
        scores = [score for _, score in beams_of(one)]
        assert [score for _, score in beams_of(output)] == pytest.approx(scores, abs=1e-3)


def test_beams_that_fit_no_pool_say_so(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(num_slots=48)
    wide = BeamSearchParams(beam_width=8, max_tokens=40)
    (found,) = llm.beam_search([PROMPTS[2]], wide)
    assert found.error is not None and "slots" in found.error
    with pytest.raises(OutOfSlots):
        llm.search(PROMPTS[2], "beam", params=wide)
    assert llm.generate([PROMPTS[0]], SamplingParams(max_tokens=3))[0].error is None


def test_an_abort_leaves_nothing(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm()
    request = llm.engine.submit(BeamSearch(PARAMS), PROMPTS[0])
    for _ in range(4):
        llm.engine.step()
    assert request.beams is not None
    llm.engine.abort(request)
    llm.engine.settle()
    assert isinstance(request.error, RequestAborted)
    assert request.beams is None and not request.cursors
    assert all(node.state is not NodeState.GROWING for node in request.tree)


def test_a_full_context_ends_the_search(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(max_context=6)
    result = llm.search(PROMPTS[0], "beam", params=PARAMS)
    assert "context" in str(result.stats["failed"]) and result.outputs == []


class Wrong:
    """Beam search whose third action is replaced."""

    def __init__(self, action: Callable[[Select], Action]) -> None:
        self._search = BeamSearch(PARAMS)
        self._action = action
        self._num_calls = 0

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        actions = self._search.advance(tree, events)
        self._num_calls += 1
        if self._num_calls < 3:
            return actions
        (select,) = actions
        assert isinstance(select, Select)
        return [self._action(select)]


ANY = StructuredOutput(regex="a")


def changed(select: Select, **parts: object) -> Select:
    names = ("start", "nodes", "tokens", "logprobs", "held", "top")
    return Select(**{**{name: getattr(select, name) for name in names}, **parts})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda s: changed(s, nodes=[0] * len(s.nodes)), "Select.nodes: expected nodes of"),
        (lambda s: changed(s, held={0, 10**6}), "Select.held: expected nodes of the front or held"),
        (lambda s: changed(s, start=1), "Select.start: expected 0"),
        (lambda s: changed(s, tokens=s.tokens[1:]), "Select.tokens: expected 6 items"),
        (lambda s: changed(s, tokens=[-1] * 6), "Select.tokens: expected token ids"),
        (lambda s: changed(s, structured=ANY), "Select.structured: expected the same for a whole"),
        (lambda s: Prune(node=s.nodes[0]), "none of the front or above it"),
    ],
)
def test_what_a_select_may_not_say(
    make_llm: Callable[..., LLM], action: Callable[[Select], Action], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_llm().search(PROMPTS[0], controller=Wrong(action))


def test_a_front_may_be_left_at_any_time(make_llm: Callable[..., LLM]) -> None:
    result = make_llm().search(PROMPTS[0], controller=Wrong(lambda s: Finish(outputs=s.nodes[:2])))
    assert [len(output.token_ids) for output in result.outputs] == [1, 1]
