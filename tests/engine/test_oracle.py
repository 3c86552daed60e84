"""Tokens and beams against transformers on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from ramify import LLM, BeamSearchParams, SamplingParams
from ramify.testing.models import save_tiny_llama

PROMPTS = [[5, 17, 3], [8], list(range(1, 40)), [9, 9, 9, 9, 2]]


def greedy_tokens(model: LlamaForCausalLM, prompt: list[int], count: int) -> list[int]:
    """transformers' own greedy continuation."""
    out = model.generate(
        torch.tensor([prompt]), max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    return out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("max_rows", [3, 512], ids=["chunked", "whole"])
@pytest.mark.parametrize("policy", ["fcfs", "prefill_first"])
def test_greedy_tokens_equal_transformers(
    tiny: tuple[Path, LlamaForCausalLM],
    make_llm: Callable[..., LLM],
    policy: str,
    max_rows: int,
) -> None:
    llm = make_llm(policy=policy, max_rows=max_rows)
    params = SamplingParams(temperature=0.0, max_tokens=12)
    outputs = llm.generate(PROMPTS, params)
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        assert output.outputs[0].token_ids == greedy_tokens(tiny[1], prompt, 12)
        assert output.outputs[0].finish_reason == "length"


def test_prompt_and_token_logprobs_equal_transformers(
    tiny: tuple[Path, LlamaForCausalLM], make_llm: Callable[..., LLM]
) -> None:
    llm = make_llm()
    params = SamplingParams(temperature=0.0, max_tokens=5, logprobs=3, prompt_logprobs=2)
    for _ in range(2):  # the second time the prompt is cached
        (output,) = llm.generate([PROMPTS[2]], params)
        branch = output.outputs[0]
        ids = [*PROMPTS[2], *branch.token_ids]
        with torch.inference_mode():
            exact = tiny[1](torch.tensor([ids])).logits[0].log_softmax(-1)
        assert output.prompt_logprobs is not None and branch.logprobs is not None
        assert output.prompt_logprobs[0] is None
        found = [*output.prompt_logprobs[1:], *branch.logprobs]
        assert len(found) == len(ids) - 1
        for at, token in enumerate(found):
            assert token is not None and token.token_id == ids[at + 1]
            assert token.logprob == pytest.approx(exact[at, ids[at + 1]].item(), abs=1e-4)
            best = exact[at].topk(len(token.top))
            assert [t for t, _ in token.top] == best.indices.tolist()
        assert branch.token_logprobs == [t.logprob for t in branch.logprobs]
        assert branch.cumulative_logprob == pytest.approx(sum(branch.token_logprobs))


def test_every_token_comes_with_its_logprob(
    tiny: tuple[Path, LlamaForCausalLM], make_llm: Callable[..., LLM]
) -> None:
    """Without being asked for, so that a group for a trainer is decoded as fast as any other."""
    llm = make_llm()
    params = SamplingParams(n=3, max_tokens=12, seed=4)
    for prompt, output in zip(PROMPTS, llm.generate(PROMPTS, params), strict=True):
        for branch in output.outputs:
            ids = [*prompt, *branch.token_ids]
            with torch.inference_mode():
                exact = tiny[1](torch.tensor([ids])).logits[0].log_softmax(-1)
            wanted = exact[range(len(prompt) - 1, len(ids) - 1), branch.token_ids].tolist()
            assert branch.token_logprobs == pytest.approx(wanted, abs=1e-4)
            assert branch.logprobs is None
    params = BeamSearchParams(beam_width=2, max_tokens=3, ignore_eos=True)
    (beams,) = llm.beam_search([PROMPTS[0]], params)
    # the tokens of a front know theirs, the last one is chosen and not computed
    assert [b.token_logprobs for b in beams.outputs] == [None, None]


def test_scores_of_continuations_equal_transformers(
    tiny: tuple[Path, LlamaForCausalLM], make_llm: Callable[..., LLM]
) -> None:
    llm = make_llm(max_rows=4)
    prompt, continuations = PROMPTS[2], [[4, 5, 6], [4], [7, 7, 7, 7, 7, 7, 7]]
    for _ in range(2):
        scores = llm.score(prompt, continuations)
        for tokens, score in zip(continuations, scores, strict=True):
            with torch.inference_mode():
                exact = tiny[1](torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)
            wanted = [exact[len(prompt) - 1 + i, t].item() for i, t in enumerate(tokens)]
            assert [t.logprob for t in score.token_logprobs] == pytest.approx(wanted, abs=1e-4)


BEAM_CASES = [
    (early, penalty, width)
    for early in (False, True, "never")
    for penalty in (0.0, 1.0, 2.0, -0.5)
    for width in (2, 3, 4, 5, 8)
]


def until_end(tokens: list[int], eos: int) -> list[int]:
    """A generated sequence without the padding after its end token."""
    return tokens[: tokens.index(eos) + 1] if eos in tokens else tokens


def test_beams_equal_transformers(tmp_path: Path, make_llm: Callable[..., LLM]) -> None:
    """60 cases over prompts, widths, penalties and stopping rules, an end token among 30."""
    model = save_tiny_llama(tmp_path, vocab_size=30, eos_token_id=7, seed=3)
    llm = make_llm(tmp_path)
    generator = torch.Generator().manual_seed(0)
    for case, (early, penalty, width) in enumerate(BEAM_CASES):
        prompt = torch.randint(0, 30, (2 + case % 7,), generator=generator).tolist()
        max_tokens, num_return = 3 + case % 10, max(1, width - case % 3)
        inputs = torch.tensor([prompt])
        wanted = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            num_beams=width,
            num_return_sequences=num_return,
            max_new_tokens=max_tokens,
            early_stopping=early,
            length_penalty=penalty,
            do_sample=False,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
        )
        params = BeamSearchParams(
            beam_width=width,
            num_return=num_return,
            max_tokens=max_tokens,
            early_stopping=early,
            length_penalty=penalty,
        )
        (found,) = llm.beam_search([prompt], params)
        sequences = [row[len(prompt) :].tolist() for row in wanted.sequences]
        for beam, sequence, score in zip(
            found.outputs, sequences, wanted.sequences_scores.tolist(), strict=True
        ):
            assert beam.token_ids == until_end(sequence, eos=7), f"case {case}"
            assert beam.score == pytest.approx(score, abs=1e-4), f"case {case}"
