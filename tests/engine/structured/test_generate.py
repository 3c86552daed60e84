"""Structured output through the engine: against transformers, alone and mixed, cut and resumed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from ramify import LLM, BeamSearchParams, SamplingParams, StructuredOutput
from ramify.engine.request import Request
from ramify.search.registry import make_controller
from ramify.search.sample import Sample

EOS = 2
TEXTS = [a + b for a in ("abc", "x", "12", "pq") for b in ("1", "2", "45", "y", "yz", " 9")]
PROMPTS = [[1, 40], [1, 50, 51, 52], [1, 99, 7]]
REGEX = StructuredOutput(regex="(ab|ba|[0-9]{2}){3,8}")
LINES = StructuredOutput(regex="([a-z]{3};){4}")
SCHEMA = StructuredOutput(
    json_schema={
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": -9, "maximum": 999},
            "b": {"enum": ["yes", "no"]},
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    }
)
LARK = StructuredOutput(grammar='start: "x" inner\ninner: "(" inner ")" | "z" | "[]"')
KINDS = [None, REGEX, SCHEMA, LARK, StructuredOutput(choices=TEXTS)]


# ── against transformers ─────────────────────────────────────────────────────────────────────────
def allowed_by(llm: LLM, words: Sequence[str], prompt: int) -> Callable[[int, torch.Tensor], list]:
    """What transformers may choose: tokens that go on with a word, its end behind a whole one."""
    codec = llm.engine.live.codec
    pieces = [codec.decode([token]) for token in range(codec.vocab_size)]

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        given = ids[prompt:].tolist()
        if EOS in given:
            return [EOS]
        text = codec.decode(given)
        found = [
            token
            for token, piece in enumerate(pieces)
            if piece and token > EOS and any(word.startswith(text + piece) for word in words)
        ]
        return found + [EOS] * (text in words)

    return allowed


def reference_of(model: Path) -> LlamaForCausalLM:
    reference: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(model)
    return reference.eval()


def test_greedy_tokens_equal_transformers_under_the_same_constraint(llm: LLM, model: Path) -> None:
    reference, codec = reference_of(model), llm.engine.live.codec
    params = SamplingParams(
        temperature=0.0, max_tokens=12, structured=StructuredOutput(choices=TEXTS)
    )
    for prompt, output in zip(PROMPTS, llm.generate(PROMPTS, params), strict=True):
        ids = reference.generate(
            torch.tensor([prompt]),
            do_sample=False,
            max_new_tokens=12,
            pad_token_id=0,
            prefix_allowed_tokens_fn=allowed_by(llm, TEXTS, len(prompt)),
        )
        wanted = codec.decode(ids[0, len(prompt) :].tolist(), skip_special_tokens=True)
        assert output.outputs[0].text == wanted
        assert output.outputs[0].finish_reason == "stop"


@pytest.mark.parametrize("width", [1, 2, 4])
def test_beams_equal_transformers_under_the_same_constraint(
    llm: LLM, model: Path, width: int
) -> None:
    """Its scores are the model's own log-probabilities too, and no beam is lost."""
    reference = reference_of(model)
    for prompt in PROMPTS:
        inputs = torch.tensor([prompt])
        wanted = reference.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            num_beams=width,
            num_return_sequences=width,
            max_new_tokens=12,
            do_sample=False,
            pad_token_id=0,
            prefix_allowed_tokens_fn=allowed_by(llm, TEXTS, len(prompt)),
            return_dict_in_generate=True,
            output_scores=True,
        )
        structured = StructuredOutput(choices=TEXTS)
        params = BeamSearchParams(beam_width=width, max_tokens=12, structured=structured)
        (found,) = llm.beam_search([prompt], params)
        rows = [row[len(prompt) :].tolist() for row in wanted.sequences]
        codec = llm.engine.live.codec
        assert [beam.text for beam in found.outputs] == [
            codec.decode(row, skip_special_tokens=True) for row in rows
        ]
        if width > 1:
            scores = wanted.sequences_scores.tolist()
            assert [beam.score for beam in found.outputs] == pytest.approx(scores, abs=1e-4)


def test_diverse_beams_are_legal_and_complete(llm: LLM) -> None:
    params = BeamSearchParams(beam_width=4, max_tokens=40, structured=SCHEMA)
    found = llm.search(PROMPTS[0], "diverse_beam", params=params, num_groups=2)
    assert len(found.outputs) == 4
    for output in found.outputs:
        value = json.loads(output.text)
        assert type(value["a"]) is int and value["b"] in ("yes", "no") and len(value) == 2


# ── batches, memory, drafts ──────────────────────────────────────────────────────────────────────
def mixed(count: int) -> tuple[list[list[int]], list[SamplingParams]]:
    """Requests of every kind, those without a grammar among them."""
    prompts = [[1, 40 + i, *range(60, 60 + i)] for i in range(count)]
    params = [
        SamplingParams(
            n=1 + i % 3, max_tokens=24, seed=i, temperature=0.9, structured=KINDS[i % len(KINDS)]
        )
        for i in range(count)
    ]
    return prompts, params


@pytest.mark.parametrize("settings", [{}, {"run_ahead": True}, {"num_slots": 70}, {"max_rows": 6}])
def test_a_mixed_batch_gives_each_what_it_gets_alone(
    llm: LLM, model: Path, settings: dict[str, object]
) -> None:
    prompts, params = mixed(10)
    alone = [llm.generate([p], one)[0] for p, one in zip(prompts, params, strict=True)]
    together = LLM(str(model), **{"num_slots": 2000, **settings}).generate(prompts, params)
    for a, b in zip(alone, together, strict=True):
        assert b.error is None
        assert [o.token_ids for o in a.outputs] == [o.token_ids for o in b.outputs]
        assert [o.finish_reason for o in a.outputs] == [o.finish_reason for o in b.outputs]
    if settings == {"num_slots": 70}:
        assert sum(output.usage.preemptions for output in together) > 0


def every_token(tokens: list[int], most: int) -> list[list[int]]:
    return [[token] for token in range(512)]


def digits(tokens: list[int], most: int) -> list[list[int]]:
    """Right now and then, wrong now and then, the end of text among them."""
    return [[tokens[-1], EOS], [20, 21, 22], [*tokens[-3:], EOS], [EOS, 5]]


@pytest.mark.parametrize("drafter", [every_token, digits, "ngram"])
def test_drafts_change_no_token_and_none_is_illegal(
    llm: LLM, model: Path, drafter: Callable[..., object] | str
) -> None:
    prompts, params = mixed(10)
    config: dict[str, object] = {"method": "ngram", "num_speculative_tokens": 512}
    config |= {"prompt_lookup_min": 1, "adaptive": False}
    if callable(drafter):
        config |= {"method": "custom", "drafter": drafter}
    drafting = LLM(str(model), num_slots=4000, speculative_config=config)
    found, usages = drafting.generate(prompts, params), []
    for a, b in zip(llm.generate(prompts, params), found, strict=True):
        assert [o.token_ids for o in a.outputs] == [o.token_ids for o in b.outputs]
        usages.append(b.usage)
    assert sum(usage.accepted_tokens for usage in usages) > 0


def test_only_what_the_grammar_lets_pass_is_verified(model: Path) -> None:
    config = {"method": "custom", "drafter": every_token, "num_speculative_tokens": 500}
    drafting = LLM(str(model), num_slots=4000, speculative_config={**config, "adaptive": False})
    params = SamplingParams(max_tokens=9, seed=0, structured=StructuredOutput(regex="[0-4]{9}"))
    (output,) = drafting.generate([PROMPTS[0]], params)
    usage = output.usage
    # 5 digits at each of the tokens that have one behind them; each time one of them is right
    assert usage.accepted_tokens == usage.verified_steps
    assert usage.drafted_tokens == 5 * usage.verified_steps


def test_a_step_by_step_search_stays_in_the_grammar(llm: LLM) -> None:
    """Particles are resampled in the middle of the text; every copy goes on from where it is."""
    params = SamplingParams(
        max_tokens=20, stop=";", include_stop_str_in_output=True, seed=1, structured=LINES
    )
    found = llm.search(PROMPTS[0], "smc", params=params, depth=6, width=5, num_outputs=3)
    assert len(found.outputs) == 3
    assert all(re.fullmatch(str(LINES.regex), output.text) for output in found.outputs)


@pytest.mark.parametrize("drafts", [False, True])
def test_searches_in_a_pool_that_is_too_small_lose_no_state(model: Path, *, drafts: bool) -> None:
    """Their branches are preempted between and within steps, and computed again from tokens."""
    params = SamplingParams(max_tokens=20, stop=";", seed=1, structured=LINES)
    params = replace(params, include_stop_str_in_output=True)
    found = []
    for num_slots in (3000, 75):
        settings: dict[str, object] = {"num_slots": num_slots}
        if drafts:
            config = {"method": "ngram", "prompt_lookup_min": 1, "adaptive": False}
            settings["speculative_config"] = config
        llm = LLM(str(model), **settings)
        searches = [make_controller("smc", params=params, depth=6, width=4) for _ in range(4)]
        requests = [llm.engine.submit(one, [1, 40 + i]) for i, one in enumerate(searches)]
        while not all(request.is_done for request in requests):
            llm.engine.step()
            llm.engine.cache.check_integrity()
        assert not any(request.error for request in requests)
        found.append([texts_of(request) for request in requests])
    assert sum(request.usage.preemptions for request in requests) > 0
    assert all(re.fullmatch(str(LINES.regex), text) for texts in found[1] for text in texts)
    assert found[0] == found[1]


# ── requests beside each other ───────────────────────────────────────────────────────────────────
def test_a_request_that_is_aborted_leaves_the_others_legal(llm: LLM) -> None:
    params = SamplingParams(n=3, max_tokens=30, seed=1, structured=REGEX)
    requests = [llm.engine.submit(Sample(params), prompt, seed=1) for prompt in PROMPTS]
    for _ in range(3):
        llm.engine.step()
    llm.engine.abort(requests[1])
    while not all(request.is_done for request in requests):
        llm.engine.step()
    for request in (requests[0], requests[2]):
        assert all(re.fullmatch(str(REGEX.regex), text) for text in texts_of(request))


def texts_of(request: Request) -> list[str]:
    assert request.finish is not None
    return [request.tree.completion_text(node) for node in request.finish.outputs]


# ── steps that run ahead, and GPUs ───────────────────────────────────────────────────────────────
def test_a_grammar_ends_running_ahead_and_its_end_begins_it_again(model: Path) -> None:
    """A free request beside a structured one: waited for while both live, ahead afterwards."""
    llm = LLM(str(model), num_slots=2000, run_ahead=True)
    free = SamplingParams(max_tokens=40, seed=0, ignore_eos=True)
    short = SamplingParams(max_tokens=9, seed=1, structured=StructuredOutput(regex="[0-9]{9}"))
    requests = [llm.engine.submit(Sample(one), [1, 44], seed=7) for one in (free, short)]
    while not requests[1].is_done:
        llm.engine.step()
        assert llm.engine._steady is None or requests[1].is_done
    ran_ahead = False
    while not requests[0].is_done:
        llm.engine.step()
        ran_ahead |= llm.engine._steady is not None
    assert ran_ahead and re.fullmatch("[0-9]{9}", *texts_of(requests[1]))


@pytest.mark.gpu
def test_a_gpu_gives_the_tokens_and_beams_of_the_cpu(llm: LLM, model: Path) -> None:
    prompts, params = mixed(20)
    on_gpu = LLM(str(model), device="cuda", dtype="float32", num_slots=4000)
    for a, b in zip(llm.generate(prompts, params), on_gpu.generate(prompts, params), strict=True):
        assert [o.token_ids for o in a.outputs] == [o.token_ids for o in b.outputs]
    for structured in KINDS[1:]:
        beams = BeamSearchParams(beam_width=4, max_tokens=40, structured=structured)
        wanted, found = (one.beam_search(prompts[:3], beams) for one in (llm, on_gpu))
        for a, b in zip(wanted, found, strict=True):
            assert [o.text for o in a.outputs] == [o.text for o in b.outputs]
