"""No output of any random grammar is illegal, sampled or by beams, all of them mixed in batches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ramify import LLM, BeamSearchParams, SamplingParams
from ramify.engine.request import Request
from ramify.search.beam import BeamSearch
from ramify.search.sample import Sample
from ramify.testing.grammars import Case, make_case

BATCH = 60  # grammars at once
LONGEST = 300  # tokens; no text of these languages is longer
WIDTH = 3


def submit(llm: LLM, case: Case, seed: int) -> list[Request]:
    """Two samples of a grammar and its best beams."""
    structured, eos = case.structured, llm.engine.limits.eos_token_ids
    heat = (0.0, 0.7, 1.0, 1.5)[seed % 4]
    params = SamplingParams(
        n=2, max_tokens=LONGEST, temperature=heat, top_p=0.95, seed=seed, structured=structured
    )
    beams = BeamSearchParams(beam_width=WIDTH, max_tokens=LONGEST, structured=structured)
    controllers = [Sample(params), BeamSearch(beams, eos)]
    return [llm.engine.submit(one, [1, 40 + seed % 400], seed=seed) for one in controllers]


def outputs(llm: LLM, seeds: range) -> Iterator[tuple[Case, str, str | None]]:
    """Case, text and finish reason of every output; a free request runs beside the others."""
    cases = [make_case(seed) for seed in seeds]
    requests = [submit(llm, case, seed) for case, seed in zip(cases, seeds, strict=True)]
    free = llm.engine.submit(Sample(SamplingParams(max_tokens=20, ignore_eos=True)), [1, 9])
    while not all(request.is_done for many in [[free], *requests] for request in many):
        llm.engine.step()
    assert free.error is None
    for case, many in zip(cases, requests, strict=True):
        for request in many:
            assert request.error is None, (case.structured, request.error)
            assert request.finish is not None and request.finish.outputs, case.structured
            for node in request.finish.outputs:
                yield case, text_of(llm, request, node), reason_of(request, node)


def text_of(llm: LLM, request: Request, node: int) -> str:
    ids = request.tree.completion_ids(node)
    eos = llm.engine.limits.eos_token_ids
    return llm.engine.live.codec.decode(ids[:-1] if ids[-1] in eos else ids)


def reason_of(request: Request, node: int) -> str | None:
    made = request.controller
    if isinstance(made, BeamSearch):
        return made.hypotheses[node].finish_reason
    return request.tree[node].finish_reason


def check(llm: LLM, count: int) -> None:
    num_outputs = 0
    for begin in range(0, count, BATCH):
        for case, text, reason in outputs(llm, range(begin, min(begin + BATCH, count))):
            assert reason == "stop", (case.structured, text, reason)
            assert case.holds(text), (case.structured, text)
            num_outputs += 1
    assert num_outputs >= 3 * count  # two samples and at least one beam of each


def test_hundreds_of_random_grammars(llm: LLM) -> None:
    check(llm, 300)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_random_grammars(llm: LLM) -> None:
    check(llm, 10_000)


def test_the_free_model_breaks_them_all(llm: LLM) -> None:
    """What is asserted above is not true by itself."""
    cases = [make_case(seed) for seed in range(60)]
    params = [SamplingParams(max_tokens=20, seed=seed) for seed in range(60)]
    found = llm.generate([[1, 40 + seed] for seed in range(60)], params)
    texts = [result.outputs[0].text for result in found]
    assert not any(case.holds(text) for case, text in zip(cases, texts, strict=True))
