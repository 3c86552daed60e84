"""Whatever a drafter says, a branch gets the tokens of plain decoding, and no slot is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from ramify import LLM, BeamSearchParams, InputError, RequestOutput, SamplingParams
from ramify.engine.speculation.gain import TRIES
from ramify.search.beam import BeamSearch
from ramify.search.sample import Sample

PROMPTS = [[1, 2, 3, 1, 2], list(range(30, 45)), [7] * 9]
Guess = Callable[[list[int], int], Sequence[Sequence[int]]]


def oracle(paths: Sequence[list[int]]) -> Guess:
    """Knows what will come, and mixes it with what will not."""

    def guess(tokens: list[int], most: int) -> list[list[int]]:
        end = len(tokens)
        known = [path[end:] for path in paths if path[:end] == tokens and len(path) > end]
        wrong = [[(path[0] + 1) % 90, *path[1:]] for path in known]
        late = [[*path[:2], 5, 6] for path in known]
        return [*wrong[:1], *known, *late]

    return guess


def noisy(tokens: list[int], most: int) -> list[list[int]]:
    """Right now and then by accident: all tokens below the tip, doubles, too deep, too wide."""
    rng = np.random.default_rng(len(tokens))
    return [[int(t) for t in rng.integers(0, 96, 40)] for _ in range(50)] + [[3], [3], []]


def every_token(tokens: list[int], most: int) -> list[list[int]]:
    return [[token] for token in range(96)]


DRAFTERS: dict[str, dict[str, object]] = {
    "ngram": {"method": "ngram", "num_speculative_tokens": 6},
    "suffix": {"method": "suffix", "num_speculative_tokens": 6},
    "noisy": {"method": "custom", "drafter": noisy, "num_speculative_tokens": 9},
    "every": {"method": "custom", "drafter": every_token, "num_speculative_tokens": 96},
    "none": {"method": "custom", "drafter": lambda tokens, most: []},
}
PARAMS = {
    "greedy": SamplingParams(temperature=0.0, max_tokens=14, logprobs=2),
    "sampled": SamplingParams(n=3, temperature=0.7, top_p=0.9, max_tokens=9, seed=3),
    "edited": SamplingParams(
        n=2,
        temperature=0.9,
        max_tokens=12,
        min_tokens=6,
        seed=4,
        repetition_penalty=1.4,
        frequency_penalty=0.5,
        presence_penalty=0.2,
        logit_bias={11: 4.0},
        stop_token_ids=[11, 12],
    ),
}
SETTINGS: dict[str, dict[str, object]] = {
    "roomy": {},
    "tight": {"num_slots": 44, "policy": "prefill_first", "max_rows": 5},
    "chunks": {"max_rows": 5, "prefix_cache": False},
}


def assert_same(got: list[RequestOutput], wanted: list[RequestOutput]) -> None:
    assert len(got) == len(wanted) > 0
    for a, b in zip(got, wanted, strict=True):
        assert a.error is None and b.error is None
        assert a.usage.generated_tokens == b.usage.generated_tokens
        for one, other in zip(a.outputs, b.outputs, strict=True):
            assert one.token_ids == other.token_ids and one.text == other.text
            assert one.finish_reason == other.finish_reason
            assert one.stop_reason == other.stop_reason
            assert one.cumulative_logprob == pytest.approx(other.cumulative_logprob, abs=1e-3)
            assert len(one.logprobs or ()) == len(other.logprobs or ())


def paths_of(outputs: list[RequestOutput]) -> list[list[int]]:
    return [[*o.prompt_token_ids, *branch.token_ids] for o in outputs for branch in o.outputs]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("drafter", [*DRAFTERS, "oracle", "draft_model"])
def test_tokens_are_those_of_plain_decoding(
    make_llm: Callable[..., LLM], tiny: tuple[Path, object], drafter: str, settings: str
) -> None:
    plain = make_llm().generate(PROMPTS * 3, [p for p in PARAMS.values() for _ in PROMPTS])
    known = {"method": "custom", "drafter": oracle(paths_of(plain)), "num_speculative_tokens": 12}
    model = {"method": "draft_model", "model": str(tiny[0]), "num_speculative_tokens": 5}
    config = {**DRAFTERS, "oracle": known, "draft_model": model}[drafter]
    llm = make_llm(speculative_config={**config, "adaptive": False}, **SETTINGS[settings])
    got = [output for params in PARAMS.values() for output in llm.generate(PROMPTS, params)]
    assert_same(got, plain)
    accepted = sum(output.usage.accepted_tokens for output in got)
    drafted = sum(output.usage.drafted_tokens for output in got)
    assert 0 <= accepted <= drafted
    if drafter in ("oracle", "draft_model", "every") and settings != "tight":
        assert accepted > 50


def test_a_perfect_drafter_is_believed_to_the_last_token(make_llm: Callable[..., LLM]) -> None:
    params = SamplingParams(temperature=0.8, seed=1, max_tokens=16)
    plain = make_llm(method="flatten").generate([[1, 2, 3]], params)
    (path,) = paths_of(plain)
    config = {
        "method": "custom",
        "drafter": lambda tokens, most: [path[len(tokens) : len(tokens) + 4]],
        "num_speculative_tokens": 4,
    }
    llm = make_llm(method="flatten", speculative_config=config)
    got = llm.generate([[1, 2, 3]], params)
    assert_same(got, plain)
    usage = got[0].usage
    # the prompt brings the first token, each step after it four of the draft and one more
    assert (usage.verified_steps, usage.drafted_tokens, usage.accepted_tokens) == (3, 12, 12)
    assert usage.steps == 4 and usage.computed_tokens == 3 + 15
    assert usage.tokens_per_verified_step == 5.0 and usage.acceptance_rate == 1.0
    # each branch alone would have read what plain decoding reads; nothing is read unaccounted
    assert usage.kv_bytes_per_branch == plain[0].usage.kv_bytes_per_branch
    assert usage.kv_bytes_read == pytest.approx(llm.engine.executor.kv_bytes_read, rel=1e-6)


def test_stops_end_a_branch_inside_its_draft(
    make_llm: Callable[..., LLM], bytes_model: Path
) -> None:
    free = SamplingParams(temperature=0.9, seed=2, max_tokens=30)
    (whole,) = make_llm(bytes_model).generate(["abc abc"], free)
    path = [*whole.prompt_token_ids, *whole.outputs[0].token_ids]
    config = {"method": "custom", "drafter": lambda tokens, most: [path[len(tokens) :]]}
    stop = whole.outputs[0].text[6:8]
    for params in (
        SamplingParams(temperature=0.9, seed=2, max_tokens=30, stop=[stop]),
        SamplingParams(temperature=0.9, seed=2, max_tokens=30, stop_token_ids=[path[-9]]),
        SamplingParams(temperature=0.9, seed=2, max_tokens=13),
    ):
        plain = make_llm(bytes_model).generate(["abc abc"], params)
        llm = make_llm(bytes_model, speculative_config=config)
        assert_same(llm.generate(["abc abc"], params), plain)
        states = list(llm.stream("abc abc", params))
        assert states[-1].outputs[0].token_ids == plain[0].outputs[0].token_ids
        assert states[-1].outputs[0].text == plain[0].outputs[0].text
        assert len(states) < len(plain[0].outputs[0].token_ids)


def test_a_full_context_ends_a_branch_as_in_plain_decoding(make_llm: Callable[..., LLM]) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=50)
    plain = make_llm(max_context=20).generate([[1, 2, 3]], params)
    (path,) = paths_of(plain)
    config = {"method": "custom", "drafter": lambda tokens, most: [[*path[len(tokens) :], 9, 9]]}
    assert_same(
        make_llm(max_context=20, speculative_config=config).generate([[1, 2, 3]], params), plain
    )


def grow(llm: LLM) -> list[list[int]]:
    """A tree by hand: branches, forks inside what was drafted, cuts."""
    root = llm.tree([1, 2, 3, 4], seed=5)
    params = SamplingParams(temperature=0.8, max_tokens=7)
    nodes = root.expand(3, params)
    nodes += nodes[0].expand(2, params)
    nodes += nodes[1].fork(8).expand(2, params)
    nodes[2].prune()
    nodes += nodes[4].append([5, 6]).expand(1, params)
    paths = [node.path_token_ids for node in nodes]
    root.finish()
    return paths


def test_trees_grow_the_same(make_llm: Callable[..., LLM]) -> None:
    wanted = grow(make_llm())
    config = {"method": "custom", "drafter": oracle(wanted), "num_speculative_tokens": 7}
    assert grow(make_llm(speculative_config=config)) == wanted


def test_branches_draft_beside_beams(make_llm: Callable[..., LLM]) -> None:
    beams, params = BeamSearchParams(beam_width=3, max_tokens=8), PARAMS["sampled"]
    results = []
    for config in (None, DRAFTERS["every"]):
        engine = make_llm(speculative_config=config).engine
        requests = [
            engine.submit(BeamSearch(beams, ()), PROMPTS[1]),
            engine.submit(Sample(params), PROMPTS[0], seed=3),
        ]
        while not all(request.is_done for request in requests):
            engine.step()
        outputs = [request.finish.outputs if request.finish else () for request in requests]
        results.append(
            [
                r.tree.completion_ids(n)
                for r, nodes in zip(requests, outputs, strict=True)
                for n in nodes
            ]
        )
    assert results[0] == results[1] and len(results[0]) == 6


@pytest.mark.parametrize(
    ("guess", "message"),
    [
        (lambda tokens, most: [[1, 96]], r"draft token: expected a token id in \[0, 96\), got 96"),
        (lambda tokens, most: [[-1]], "got -1"),
        (lambda tokens, most: 1 // 0, "division"),
    ],
)
def test_a_drafter_that_breaks_its_rules_fails_its_requests_alone(
    make_llm: Callable[..., LLM], guess: Guess, message: str
) -> None:
    def only_for_long(tokens: list[int], most: int) -> Sequence[Sequence[int]]:
        return guess(tokens, most) if len(tokens) > 12 else []

    llm = make_llm(speculative_config={"method": "custom", "drafter": only_for_long})
    params = SamplingParams(max_tokens=6, seed=0)
    good, bad = llm.generate([[1, 2, 3], list(range(30, 45))], params)
    assert good.error is None or "division" in message
    assert bad.error is not None
    with pytest.raises((InputError, ZeroDivisionError), match=message):
        llm.search(list(range(30, 45)), "sample", params=params)


def test_a_step_that_fails_leaves_no_draft_behind(
    make_llm: Callable[..., LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = make_llm(speculative_config=DRAFTERS["every"])
    stream = llm.stream([1, 2, 3], SamplingParams(max_tokens=20, seed=0, temperature=0.0))
    states = [next(stream)]

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for call in ("run", "collect"):
            patch.setattr(llm.engine.executor, call, fail)
        with pytest.raises(KeyboardInterrupt):
            next(stream)
    llm.engine.cache.check_integrity()
    states += stream
    plain = make_llm().generate([[1, 2, 3]], SamplingParams(max_tokens=20, temperature=0.0))
    assert states[-1].outputs[0].token_ids == plain[0].outputs[0].token_ids


def test_drafting_that_never_helps_is_paused(make_llm: Callable[..., LLM]) -> None:
    params = SamplingParams(max_tokens=60, temperature=0.0)
    plain = make_llm().generate([[1, 2, 3]], params)
    (path,) = paths_of(plain)
    wrong = {
        "method": "custom",
        "drafter": lambda tokens, most: [[(path[min(len(tokens), len(path) - 1)] + 1) % 96]],
    }
    got = make_llm(speculative_config=wrong).generate([[1, 2, 3]], params)
    assert_same(got, plain)
    # tried at tokens 1-4, 21-24 and 57-58; the last token alone leaves nothing to draft
    assert got[0].usage.verified_steps == 2 * TRIES + 2
    assert got[0].usage.accepted_tokens == 0
    always = make_llm(speculative_config={**wrong, "adaptive": False})
    assert always.generate([[1, 2, 3]], params)[0].usage.verified_steps == 58


@pytest.mark.slow
@pytest.mark.parametrize("drafter", ["ngram", "suffix", "noisy", "draft_model"])
def test_greedy_tokens_of_many_prompts(
    make_llm: Callable[..., LLM], tiny: tuple[Path, object], drafter: str
) -> None:
    """200 prompts, of which each repeats itself, in batches that share the engine."""
    rng = np.random.default_rng(0)
    prompts = [[int(t) for t in rng.integers(0, 96, rng.integers(2, 9))] * 3 for _ in range(200)]
    params = SamplingParams(temperature=0.0, max_tokens=16)
    plain = make_llm(num_slots=9000).generate(prompts, params)
    model = {"method": "draft_model", "model": str(tiny[0]), "num_speculative_tokens": 5}
    config = {**DRAFTERS, "draft_model": model}[drafter]
    llm = make_llm(num_slots=9000, speculative_config={**config, "adaptive": False})
    got = [out for at in range(0, 200, 20) for out in llm.generate(prompts[at : at + 20], params)]
    assert_same(got, plain)
    assert sum(output.usage.accepted_tokens for output in got) > 0
