"""Steps that run ahead against steps that are waited for: equal in all that a user gets."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM

from ramify import LLM, RequestOutput, SamplingParams
from ramify.core.structured import StructuredOutput
from ramify.engine import draws
from ramify.engine.draws import MOST_TOP
from ramify.engine.steady import SteadyDecode

Tiny = tuple[Path, LlamaForCausalLM]
PROMPTS = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 9], [40, 41]]
RULES: dict[str, dict[str, Any]] = {
    "logprobs": {"logprobs": 3},
    "repetition": {"repetition_penalty": 1.4},
    "counts": {"presence_penalty": 0.6, "frequency_penalty": 0.35},
    "bias": {"logit_bias": {5: 2.5, 11: -40.0, 60: 1.25}},
    "bans": {"min_tokens": 9, "stop_token_ids": [5, 60, 7, 8]},
    "filters": {"top_k": 20, "top_p": 0.9},
}
MIXES = [mix for size in range(1, len(RULES) + 1) for mix in combinations(RULES, size)]


@pytest.fixture(scope="module")
def llms(tiny: Tiny) -> tuple[LLM, LLM]:
    """One that waits for every step, and one that runs ahead."""
    waiting, ahead = (LLM(str(tiny[0]), num_slots=900, run_ahead=r) for r in (False, True))
    return waiting, ahead


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps launched ahead of the host, one entry per run of steps."""
    found: list[int] = []
    close = SteadyDecode.close

    def noted(steady: SteadyDecode) -> object:
        found.append(steady._num_launched)
        return close(steady)

    monkeypatch.setattr(SteadyDecode, "close", noted)
    return found


def everything(outputs: list[RequestOutput]) -> tuple[list[object], list[float]]:
    """Tokens, ranks, alternatives, texts and reasons; and all log-probabilities."""
    assert [output.error for output in outputs] == [None] * len(outputs)
    branches = [branch for output in outputs for branch in output.outputs]
    reported = [token for branch in branches for token in branch.logprobs or ()]
    numbers = [p for branch in branches for p in branch.token_logprobs or ()]
    numbers += [branch.cumulative_logprob for branch in branches]
    numbers += [p for token in reported for p in (token.logprob, *dict(token.top).values())]
    told: list[object] = [(b.token_ids, b.text, b.finish_reason, b.stop_reason) for b in branches]
    told += [(token.token_id, token.rank, list(dict(token.top))) for token in reported]
    return told, numbers


def assert_same(outputs: list[RequestOutput], wanted: list[RequestOutput]) -> None:
    """Log-probabilities up to the rounding of products: rows that ended stay in a run's steps."""
    (told, numbers), (wanted_told, wanted_numbers) = everything(outputs), everything(wanted)
    assert told == wanted_told
    assert numbers == pytest.approx(wanted_numbers, abs=2e-5)


@pytest.mark.parametrize("mix", MIXES, ids="+".join)
def test_every_mix_of_parameters(llms: tuple[LLM, LLM], runs: list[int], mix: list[str]) -> None:
    """Three prompts of two or three branches, some greedy; what one may be told, others are not."""
    rules: dict[str, Any] = {"max_tokens": 24, "n": 3, "seed": 4}
    for name in mix:
        rules |= RULES[name]
    params = [
        SamplingParams(**rules),
        SamplingParams(**rules, temperature=0.0),
        SamplingParams(max_tokens=17, n=2, seed=1, temperature=1.4),
    ]
    waiting, ahead = (llm.generate(PROMPTS, params) for llm in llms)
    assert_same(ahead, waiting)
    assert sum(runs) >= 12


def test_branches_of_one_length_are_equal_to_the_bit(llms: tuple[LLM, LLM]) -> None:
    rules: dict[str, Any] = {"max_tokens": 30, "n": 3, "seed": 4}
    for name in ("logprobs", "repetition", "counts", "bias"):
        rules |= RULES[name]
    waiting, ahead = (everything(llm.generate(PROMPTS, SamplingParams(**rules))) for llm in llms)
    assert ahead == waiting


def test_the_report_of_a_run_is_whole(llms: tuple[LLM, LLM]) -> None:
    params = SamplingParams(max_tokens=20, temperature=0.0, logprobs=32, repetition_penalty=1.2)
    (output,) = llms[1].generate(PROMPTS[:1], params)
    (branch,) = output.outputs
    assert branch.logprobs is not None and len(branch.logprobs) == len(branch.token_ids) == 20
    assert [token.token_id for token in branch.logprobs] == branch.token_ids
    assert [token.logprob for token in branch.logprobs] == branch.token_logprobs
    for token in branch.logprobs:
        assert len(token.top) == 32 and [p for _, p in token.top] == sorted(
            (p for _, p in token.top), reverse=True
        )
        own = dict(token.top).get(token.token_id, token.logprob)
        assert own == pytest.approx(token.logprob, abs=1e-5)
        assert token.rank > 32 or token.top[token.rank - 1][0] == token.token_id


def grown_by_hand(llm: LLM, params: SamplingParams) -> tuple[list[list[int]], list[float]]:
    """Branches that grow, fork inside and at their ends, are pruned, and go on."""
    root = llm.tree(PROMPTS[0], seed=9)
    first, second, third = root.expand(3, params)
    second.prune()
    grown = [first, third, *first.fork(len(PROMPTS[0]) + 7).expand(2, params)]
    grown += third.append([3, 4, 5]).expand(2, params)
    tokens = [node.token_ids for node in grown]
    sums = [node.cumulative_logprob for node in grown]
    root.finish()
    return tokens, sums


@pytest.mark.parametrize("names", [("logprobs",), ("repetition", "counts", "bias"), ("bans",)])
def test_forks_and_prunes(llms: tuple[LLM, LLM], runs: list[int], names: list[str]) -> None:
    rules: dict[str, Any] = {"max_tokens": 21}
    for name in names:
        rules |= RULES[name]
    waiting, ahead = (grown_by_hand(llm, SamplingParams(**rules)) for llm in llms)
    assert ahead[0] == waiting[0] and ahead[1] == pytest.approx(waiting[1], abs=1e-4)
    assert len(runs) >= 3


@pytest.mark.parametrize("names", [("logprobs", "counts"), ("repetition", "bias", "bans")])
def test_a_small_pool_and_streams(tiny: Tiny, llms: tuple[LLM, LLM], names: list[str]) -> None:
    """Branches are preempted and computed again; a stream looks after every step."""
    rules: dict[str, Any] = {"max_tokens": 30, "n": 3, "seed": 2, "stop": None}
    for name in names:
        rules |= RULES[name]
    params = SamplingParams(**rules)
    small = LLM(str(tiny[0]), num_slots=90, run_ahead=True)
    outputs = small.generate(PROMPTS, params)
    assert sum(output.usage.preemptions for output in outputs) > 0
    wanted = llms[0].generate(PROMPTS, params)
    assert_same(outputs, wanted)
    for prompt, output in zip(PROMPTS, wanted, strict=True):
        *_, last = llms[1].stream(prompt, params)
        assert_same([last], [output])


def test_what_is_left_to_steps_that_wait(
    bytes_model: Path, runs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grammar, more alternatives than a step reports, more bias than it has room for."""
    llm = LLM(str(bytes_model), num_slots=900, run_ahead=True)
    monkeypatch.setattr(draws, "MOST_EDITS", 30)
    left: list[dict[str, Any]] = [
        {"structured": StructuredOutput(regex="[a-z]{30}")},
        {"logprobs": MOST_TOP + 1},
        {"logit_bias": dict.fromkeys(range(16), 0.5), "n": 2},
    ]
    for rules in left:
        llm.generate(["one"], SamplingParams(max_tokens=20, **rules))
        assert not runs
    for rules in ({"logprobs": MOST_TOP}, {"logit_bias": dict.fromkeys(range(15), 0.5), "n": 2}):
        llm.generate(["one"], SamplingParams(max_tokens=20, **rules))
    assert len(runs) == 2


def test_bans_end_where_they_should(llms: tuple[LLM, LLM]) -> None:
    """Most tokens would stop a branch, and none may before the ninth."""
    count = 12
    stops = list(range(60))
    params = SamplingParams(max_tokens=40, min_tokens=9, n=count, stop_token_ids=stops)
    (output,) = llms[1].generate([[1, 2]], params)
    lengths = [len(branch.token_ids) for branch in output.outputs]
    assert len(lengths) == count and min(lengths) >= 10 and max(lengths) < 40


def test_rows_that_ended_are_left_out_before_they_are_most(tiny: Tiny, runs: list[int]) -> None:
    """Of nine branches five end at once, then one of four, which is no reason to begin anew."""
    lengths = {(1, 2): 9, (3, 4): 20, (5, 6): 60}
    counts = (5, 1, 3)
    params = [
        SamplingParams(max_tokens=most, n=count, seed=3, ignore_eos=True)
        for most, count in zip(lengths.values(), counts, strict=True)
    ]
    prompts = [list(prompt) for prompt in lengths]
    llms = (LLM(str(tiny[0]), num_slots=9000, run_ahead=is_ahead) for is_ahead in (False, True))
    (waiting, _), (ahead, _) = (everything(llm.generate(prompts, params)) for llm in llms)
    assert ahead == waiting
    first, second = runs
    assert 5 <= first <= 12 and 45 <= second <= 60
