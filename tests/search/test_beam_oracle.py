"""Beam search against transformers' generate(num_beams=...) on tiny models of random weights."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ramify.core.params import BeamSearchParams
from ramify.search.beam import BeamSearch
from ramify.testing.scripted import ScriptedModel, run_controller

VOCAB = 30
EOS = {"no_eos": (), "one_eos": (2,), "two_eos": (2, 7)}
PENALTIES = (1.0, 0.0, -0.7, 2.0, 0.6, 1.3, 0.0, 1.0)


def tiny_model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.6,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config).eval()


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


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("eos", EOS.values(), ids=EOS)
def test_same_sequences_and_scores_as_transformers(
    early_stopping: bool | str, eos: tuple[int, ...]
) -> None:
    for case, penalty in enumerate(PENALTIES):
        model = tiny_model(case)
        width = (4, 3, 1, 5, 2, 6, 4, 2)[case]
        params = BeamSearchParams(
            beam_width=width,
            max_tokens=(8, 12, 6, 9, 1, 10, 7, 14)[case],
            length_penalty=penalty,
            early_stopping=early_stopping,
            num_return=None if case % 2 else max(width - 1, 1),
        )
        if width == 1:
            continue  # transformers then decodes greedily, without scores
        prompt = [3 + case, 11, 5, 4][: 1 + case % 4]
        expected = expected_beams(model, prompt, params, eos)
        controller = BeamSearch(params, eos)
        run = run_controller(scripted(model, eos), controller, tuple(prompt))
        assert run.finish is not None
        found = [(run.tree.completion_ids(node), run.tree[node].score) for node in run.finish.outputs]
        assert [ids for ids, _ in found] == [ids for ids, _ in expected], (case, params)
        assert [s for _, s in found] == pytest.approx([s for _, s in expected], abs=1e-5)
