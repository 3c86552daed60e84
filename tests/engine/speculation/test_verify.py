"""What verification keeps is distributed as the model says, whatever was drafted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest
import torch

from ramify import LLM, SamplingParams
from ramify.testing.models import save_tiny_llama

VOCAB, LENGTH, SAMPLES = 5, 3, 4000
PROMPT = [1, 4, 2]
HOT = 4.0
MOST = 179.0
"""The 0.999 quantile of chi-squared with 124 degrees of freedom (Wilson, Hilferty 1931)."""


def misleading(tokens: list[int], most: int) -> Sequence[Sequence[int]]:
    """The same two lines whatever the path, so that some draws are met and most are not."""
    return [[0, 0, 0], [3, 1, 2]]


def every_path(tokens: list[int], most: int) -> Sequence[Sequence[int]]:
    return list(product(range(VOCAB), repeat=2))


def joint(model: torch.nn.Module) -> dict[tuple[int, ...], float]:
    """Probability of every continuation, from transformers' logits in float64."""
    chances: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(LENGTH):
        grown: dict[tuple[int, ...], float] = {}
        for path, chance in chances.items():
            with torch.no_grad():
                logits = model(torch.tensor([[*PROMPT, *path]])).logits[0, -1]
            shares = (logits.double() / HOT).softmax(-1).tolist()
            grown |= {(*path, token): chance * share for token, share in enumerate(shares)}
        chances = grown
    return chances


@pytest.mark.parametrize("drafter", [misleading, every_path])
def test_samples_follow_the_model(tmp_path: Path, drafter: object) -> None:
    model = save_tiny_llama(tmp_path, vocab_size=VOCAB)
    config = {"method": "custom", "drafter": drafter, "adaptive": False}
    llm = LLM(str(tmp_path), device="cpu", speculative_config=config, num_slots=20_000)
    params = SamplingParams(n=20, temperature=HOT, max_tokens=LENGTH, ignore_eos=True)
    # a request at a time, so that there are rows for every draft
    outputs = [llm.generate(PROMPT, params)[0] for _ in range(SAMPLES // 20)]
    assert sum(output.usage.accepted_tokens for output in outputs) > SAMPLES / 20
    found = Counter(tuple(one.token_ids) for output in outputs for one in output.outputs)
    wanted = joint(model)
    assert found.total() == SAMPLES and found.keys() <= wanted.keys()
    statistic = sum(
        (found[path] - SAMPLES * chance) ** 2 / (SAMPLES * chance)
        for path, chance in wanted.items()
    )
    assert min(wanted.values()) * SAMPLES > 1, "every cell is expected to be met"
    assert statistic < MOST
