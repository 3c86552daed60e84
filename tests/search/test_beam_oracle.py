"""Beam search against transformers' generate(num_beams=...) on tiny models of random weights.

The models run in float64. In float32 the two sides, which batch differently, would disagree by
what the BLAS of the machine makes of either shape; in float64 they round to the same float32
logits, and what is left is that transformers adds up log-probabilities in float32.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ramify.core.params import BeamSearchParams
from ramify.search import BeamSearch, Ranked, Scored
from ramify.testing.scripted import ScriptedModel, run_controller

VOCAB = 20
EOS = {"no_eos": (), "one_eos": (2,), "three_eos": (2, 7, 9)}
WIDTHS = (4, 3, 2, 4, 2, 3, 4, 2)
MAX_TOKENS = (24, 16, 24, 9, 24, 1, 24, 14)
PENALTIES = (1.0, 0.0, -0.7, 2.0, 0.6, 1.3, 0.0, 1.0)
EPS = torch.finfo(torch.float32).eps


def tiny_model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=1.0,
    )
    return LlamaForCausalLM(config).double().eval()


def scripted(model: LlamaForCausalLM, eos: tuple[int, ...]) -> ScriptedModel:
    cache: dict[tuple[int, ...], dict[int, float]] = {}

    def next_logprobs(path: tuple[int, ...]) -> dict[int, float]:
        if path not in cache:
            with torch.inference_mode():
                logits = model(torch.tensor([path])).logits[0, -1].float()
            cache[path] = dict(enumerate(logits.log_softmax(-1).tolist()))
        return cache[path]

    vocab = [f"<{i}>" for i in range(VOCAB)]
    return ScriptedModel(next_logprobs=next_logprobs, vocab=vocab, eos_token_ids=eos)


def expected_beams(
    model: LlamaForCausalLM, prompt: list[int], params: BeamSearchParams, eos: tuple[int, ...]
) -> list[tuple[list[int], float]]:
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=params.beam_width,
        num_return_sequences=params.num_return or params.beam_width,
        max_new_tokens=params.max_tokens,
        length_penalty=params.length_penalty,
        early_stopping=params.early_stopping,
        eos_token_id=list(eos) or None,
        pad_token_id=0,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    beams = []
    for row, score in zip(out.sequences.tolist(), out.sequences_scores.tolist(), strict=True):
        ids = row[len(prompt) :]
        ends = [i for i, token in enumerate(ids) if token in eos]
        beams.append((ids[: ends[0] + 1] if ends else ids, score))
    return beams


def beam_params(case: int, early_stopping: bool | str) -> BeamSearchParams:
    return BeamSearchParams(
        beam_width=WIDTHS[case],
        max_tokens=MAX_TOKENS[case],
        length_penalty=PENALTIES[case],
        early_stopping=early_stopping,
        num_return=None if case % 2 else WIDTHS[case] - 1,
    )


def prompt_of(case: int) -> list[int]:
    return [3 + case, 11, 5, 4][: 1 + case % 4]


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("eos", EOS.values(), ids=EOS)
def test_same_sequences_and_scores_as_transformers(
    early_stopping: bool | str, eos: tuple[int, ...]
) -> None:
    for case in range(len(PENALTIES)):
        model, params = tiny_model(case), beam_params(case, early_stopping)
        controller = BeamSearch(params, eos)
        run = run_controller(scripted(model, eos), controller, tuple(prompt_of(case)))
        expected = expected_beams(model, prompt_of(case), params, eos)
        assert run.finish is not None
        nodes = run.finish.outputs
        assert [run.tree.completion_ids(n) for n in nodes] == [ids for ids, _ in expected], params
        for node, (ids, score) in zip(nodes, expected, strict=True):
            # a sum of float32 log-probabilities: one rounding for each of its numbers
            assert run.tree[node].score == pytest.approx(score, rel=EPS * len(ids), abs=0.0)
        assert [controller.hypotheses[n].finish_reason for n in nodes] == [
            "stop" if ids[-1] in eos else "length" for ids, _ in expected
        ]


@pytest.mark.parametrize("eos", EOS.values(), ids=EOS)
def test_no_case_hangs_on_a_near_tie(eos: tuple[int, ...]) -> None:
    """Else rounding would choose between beams, and equal sequences would be luck."""
    gaps: list[float] = []
    for case in range(len(PENALTIES)):
        controller = BeamSearch(beam_params(case, "never"), eos)
        run = run_controller(scripted(tiny_model(case), eos), controller, tuple(prompt_of(case)))
        rankings = [
            [logprob for _, logprob in event.top]
            if isinstance(event, Scored)
            else event.best.logprob.tolist()
            for event in run.events
            if isinstance(event, (Scored, Ranked))
        ]
        for sums in rankings:
            gaps.extend((better - worse) / -worse for better, worse in pairwise(sums))
    assert min(gaps) > 10 * EPS * max(MAX_TOKENS)


def test_the_cases_tell_the_stopping_rules_apart() -> None:
    eos = EOS["three_eos"]
    found: dict[object, list[list[int]]] = {True: [], False: [], "never": []}
    for case in range(len(PENALTIES)):
        model = scripted(tiny_model(case), eos)
        for rule, texts in found.items():
            run = run_controller(
                model, BeamSearch(beam_params(case, rule), eos), tuple(prompt_of(case))
            )
            assert run.finish is not None
            texts.extend(run.tree.completion_ids(node) for node in run.finish.outputs)
    assert found[True] != found[False] != found["never"]
    assert any(ids[-1] in eos for ids in found[False])
    assert any(ids[-1] not in eos for ids in found[False])
