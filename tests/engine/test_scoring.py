"""Scoring many continuations of a long prompt: its KV is read once, and nothing is approximate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from ramify import LLM
from ramify.models.reward_head import RewardHead, save_reward_head
from ramify.testing.models import save_tiny_llama

PROMPT_TOKENS, COUNT, LENGTH = 4096, 64, 6


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlamaForCausalLM]:
    path = tmp_path_factory.mktemp("long")
    return path, save_tiny_llama(path, max_positions=4608)


@pytest.fixture(scope="module")
def texts() -> tuple[list[int], list[list[int]]]:
    rng = np.random.default_rng(0)
    given = rng.integers(0, 96, (COUNT, LENGTH)).tolist()
    given[1] = given[0][:3]  # the same tokens once more, and fewer of them
    return rng.integers(0, 96, PROMPT_TOKENS).tolist(), given


@pytest.fixture(scope="module")
def recomputed(
    long_model: tuple[Path, LlamaForCausalLM], texts: tuple[list[int], list[list[int]]]
) -> list[tuple[list[float], torch.Tensor]]:
    """By transformers, each text from its first token: log-probabilities, the last hidden state."""
    model, (prompt, given), found = long_model[1], texts, []
    for tokens in given:
        with torch.no_grad():
            states = model.model(torch.tensor([[*prompt, *tokens]])).last_hidden_state[0]
            # the boundary token's row, the prompt's last, predicts the first token given
            logits = model.lm_head(states[PROMPT_TOKENS - 1 : -1]).log_softmax(-1)
        logprobs = logits[range(len(tokens)), tokens].tolist()
        found.append((logprobs, states[-1]))
    return found


def open_llm(path: Path, tmp_path: Path, method: str) -> LLM:
    weight = torch.randn(1, 48, generator=torch.Generator().manual_seed(3))
    save_reward_head(RewardHead([(weight, None)], activation="identity"), tmp_path)
    settings = {"num_slots": 6000, "max_rows": 1024, "reward_model": {"head": str(tmp_path)}}
    return LLM(str(path), device="cpu", method=method, **settings)


@pytest.mark.parametrize("method", ["auto", "per_branch"])
def test_the_prompt_is_read_once_and_scores_are_those_of_whole_texts(
    long_model: tuple[Path, LlamaForCausalLM],
    texts: tuple[list[int], list[list[int]]],
    recomputed: list[tuple[list[float], torch.Tensor]],
    tmp_path: Path,
    method: str,
) -> None:
    prompt, given = texts
    llm = open_llm(long_model[0], tmp_path, method)
    executor = llm.engine.executor
    llm.score(prompt, [[1]])
    before, steps = executor.kv_bytes_read, llm.engine.num_steps
    scores = llm.score(prompt, given)
    prompts_read = (executor.kv_bytes_read - before) / executor.kv_bytes_per_token / PROMPT_TOKENS
    assert llm.engine.num_steps == steps + 1
    if method == "auto":
        assert 1.0 < prompts_read < 1.2
    else:
        assert prompts_read > COUNT
    for score, (wanted, _) in zip(scores, recomputed, strict=True):
        got = [token.logprob for token in score.token_logprobs]
        assert got == pytest.approx(wanted, abs=1e-4)


def test_rewards_read_the_prompt_once_too(
    long_model: tuple[Path, LlamaForCausalLM],
    texts: tuple[list[int], list[list[int]]],
    recomputed: list[tuple[list[float], torch.Tensor]],
    tmp_path: Path,
) -> None:
    prompt, given = texts
    llm = open_llm(long_model[0], tmp_path, "auto")
    executor = llm.engine.executor
    llm.score(prompt, [[1]])
    before = executor.kv_bytes_read
    values = llm.reward(prompt, given)
    prompts_read = (executor.kv_bytes_read - before) / executor.kv_bytes_per_token / PROMPT_TOKENS
    assert 1.0 < prompts_read < 1.2
    weight = torch.randn(1, 48, generator=torch.Generator().manual_seed(3))
    wanted = [float(weight[0] @ state) for _, state in recomputed]
    assert values == pytest.approx(wanted, abs=1e-4)
