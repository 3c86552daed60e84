"""Bad input: a typed error that says both sides, and nothing else is disturbed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM

from ramify import LLM, BeamSearchParams, ConfigError, InputError, OutOfSlots, SamplingParams

Tiny = tuple[Path, LlamaForCausalLM]


@pytest.mark.parametrize(
    ("prompt", "expected", "got"),
    [
        ([], "at least one token|non-empty list", "none|\\[\\]"),
        ("", "at least one token", "empty"),
        ([1, 96], r"a token id in \[0, 96\)", "96"),
        ([1, -1], r"a token id in \[0, 96\)", "-1"),
        ([1, "a"], "an int token id", "'a'"),
        (list(range(90)) * 6, "fewer than 512 tokens", "540"),
        ("text", "a model with a tokenizer", "none"),
        (5, "a text, a list of token ids", "5"),
    ],
)
def test_prompts(make_llm: Callable[..., LLM], prompt: Any, expected: str, got: str) -> None:
    llm = make_llm()
    stream = llm.stream([1, 2, 3], SamplingParams(max_tokens=5, seed=0))
    next(stream)
    with pytest.raises(InputError, match=f"expected ({expected}).*got .*({got})"):
        llm.generate([[1, 2], prompt] if prompt != 5 else prompt)
    assert len(list(stream)[-1].outputs[0].token_ids) == 5


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(stop_token_ids=[96]),
        SamplingParams(logit_bias={96: 1.0}),
        SamplingParams(logprobs=97),
        SamplingParams(stop="x"),
    ],
    ids=["stop_token_ids", "logit_bias", "logprobs", "stop without tokenizer"],
)
def test_parameters_that_do_not_fit_the_model(
    make_llm: Callable[..., LLM], params: SamplingParams
) -> None:
    with pytest.raises(InputError, match=r"expected .*, got "):
        make_llm().generate([[1, 2]], params)


def test_more_branches_than_slots(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(num_slots=20)
    with pytest.raises(InputError, match=r"branches: expected at most 10 .*, got 11"):
        llm.generate([list(range(10))], SamplingParams(n=11))
    with pytest.raises(InputError, match=r"branches: expected at most 10 .*, got 12"):
        llm.beam_search([list(range(10))], BeamSearchParams(beam_width=12))
    with pytest.raises(InputError, match=r"prompt: expected fewer than 20 tokens"):
        llm.generate([list(range(20))])


def test_beams_that_outgrow_the_pool_say_so(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(num_slots=40)
    params = BeamSearchParams(beam_width=8, max_tokens=20)
    (output,) = llm.beam_search([list(range(30))], params)
    assert output.error is not None and "slots" in output.error


def test_a_request_that_outgrows_the_pool_fails_alone(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(num_slots=40)
    short, long = llm.generate(
        [[1, 2, 3], [4, 5, 6]],
        [SamplingParams(max_tokens=10, seed=0), SamplingParams(max_tokens=100, seed=0)],
    )
    assert short.error is None and len(short.outputs[0].token_ids) == 10
    assert long.error is not None and "slots" in long.error
    assert long.outputs[0].finish_reason == "error"
    with pytest.raises(OutOfSlots):
        llm.search([1, 2], "sample", params=SamplingParams(max_tokens=100))


def test_a_failing_scorer_fails_its_search_alone(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm()
    stream = llm.stream([1, 2, 3], SamplingParams(max_tokens=30, seed=0))
    next(stream)

    def scorer(prompt: str, completion: str) -> float:
        raise KeyError("boom")

    with pytest.raises(KeyError, match="boom"):
        llm.search([1, 2], "best_of_n", params=SamplingParams(n=2, max_tokens=3), scorer=scorer)
    assert len(list(stream)[-1].outputs[0].token_ids) == 30


def test_bad_handles(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm()
    root = llm.tree([1, 2, 3])
    child = root.expand(1, SamplingParams(max_tokens=2))[0]
    with pytest.raises(InputError, match=r"at: expected an int in \[3, 5\], got 2"):
        child.fork(2)
    child.prune()
    with pytest.raises(InputError, match="not pruned"):
        child.expand(1)
    with pytest.raises(InputError, match=r"a token id in \[0, 96\)"):
        root.append([400])
    with pytest.raises(InputError, match="context"):
        root.append([1] * 600)
    root.finish()
    with pytest.raises(InputError, match="an open tree"):
        root.expand(1)


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "no/such/model dir"},
        {"method": "fastest"},
        {"dtype": "int8"},
        {"load_format": "pickle"},
        {"device": "tpu"},
        {"num_slots": 0},
        {"kv_gib": -1.0},
        {"max_context": 100_000},
        {"colour": "red"},
    ],
    ids=str,
)
def test_settings(tiny: Tiny, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"expected .*, got "):
        LLM(**{"model": str(tiny[0]), **settings})


def test_damaged_model_directories(tiny: Tiny, tmp_path: Path) -> None:
    damaged = tmp_path / "model"
    shutil.copytree(tiny[0], damaged)
    weights = damaged / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="model.safetensors"):
        LLM(str(damaged))
    weights.unlink()
    with pytest.raises(ConfigError, match="safetensors"):
        LLM(str(damaged))
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (damaged / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="model-00002-of-00002.safetensors"):
        LLM(str(damaged))


@pytest.mark.parametrize("params", [BeamSearchParams(), [SamplingParams(), 3], "greedy"], ids=str)
def test_params_of_another_kind_are_named(make_llm: Callable[..., LLM], params: Any) -> None:
    with pytest.raises(InputError, match="params: expected SamplingParams"):
        make_llm().generate([[1, 2], [3]], params)
