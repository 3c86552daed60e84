"""The sampling kernels in Triton's interpreter against the CPU's `sample`.

Not collected by itself: test_device_sample.py runs it in a process of its own with
TRITON_INTERPRET=1, which has to be set before the kernels are imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from ramify import SamplingParams
from ramify.core.errors import InputError
from ramify.core.seeds import gumbel_noise, mix64
from ramify.engine.device_sample import DeviceSampler
from ramify.engine.sample import SampleRow, sample

CPU = torch.device("cpu")


def make_logits(vocab: int, rows: int = 4) -> Tensor:
    """Plain, with excluded tokens, with many equal logits, and with one token far above."""
    logits = torch.randn(rows, vocab) * 3.0
    logits[1, ::3] = -torch.inf
    logits[2] = (logits[2] * 2).round() / 2
    logits[3, vocab // 2] = 30.0
    return logits


def make_rows(count: int, num_rows: int, mixes: Sequence[dict[str, Any]]) -> list[SampleRow]:
    """Draws from all rows of logits by all mixes in turn."""
    return [
        SampleRow(
            row=i % num_rows,
            params=SamplingParams(**mixes[i // num_rows % len(mixes)]),
            seed=mix64(i) >> 1,
            position=31 * i,
        )
        for i in range(count)
    ]


def check(logits: Tensor, rows: Sequence[SampleRow]) -> None:
    sampler = DeviceSampler(len(rows) + 1, logits.shape[1], logits.device)
    sampler.batch.fill(rows)
    before = logits.clone()
    drawn = sampler.draw(logits, with_ranks=True)
    wanted = sample(logits.float(), rows)
    assert torch.equal(logits, before)
    assert drawn.tokens.tolist() == [t.token_id for t in wanted] + [0]
    assert drawn.ranks.tolist() == [t.rank for t in wanted] + [0]
    exact = torch.tensor([t.logprob for t in wanted] + [0.0])
    torch.testing.assert_close(drawn.logprobs, exact, rtol=0, atol=1e-5)


TEMPERATURES = [{"temperature": t} for t in (0.0, 1.0, 0.3, 2.5, 1e-4, 50.0)]


@pytest.mark.parametrize("vocab", [97, 1000, 5000])
def test_tokens_at_all_temperatures(vocab: int) -> None:
    check(make_logits(vocab), make_rows(96, 4, TEMPERATURES))


def test_half_precision_and_strided_logits() -> None:
    logits = make_logits(3000).to(torch.float16)[:, :2500]
    assert logits.stride(0) == 3000
    check(logits, make_rows(24, 4, TEMPERATURES))


def test_positions_advance_on_the_device() -> None:
    logits = torch.zeros(1, 64)
    rows = make_rows(5, 1, [{}])
    sampler = DeviceSampler(8, 64, CPU)
    sampler.batch.fill(rows)
    for step in range(4):
        noise = gumbel_noise([r.seed for r in rows], [r.position + step for r in rows], 64)
        assert sampler.draw(logits).tokens[:5].tolist() == noise.argmax(axis=1).tolist()
        sampler.batch.advance()


def test_a_smaller_batch_leaves_nothing_of_the_last() -> None:
    logits = make_logits(300)
    sampler = DeviceSampler(8, 300, CPU)
    sampler.batch.fill(make_rows(8, 4, TEMPERATURES))
    first = sampler.draw(logits).tokens.tolist()
    rows = make_rows(3, 4, [{"temperature": 0.0}])
    sampler.batch.fill(rows)
    found = sampler.draw(logits).tokens.tolist()
    assert found == [t.token_id for t in sample(logits, rows)] + first[3:]


def test_what_does_not_fit_is_refused() -> None:
    sampler = DeviceSampler(2, 97, CPU)
    with pytest.raises(InputError, match="draws: expected at most 2"):
        sampler.batch.fill(make_rows(3, 1, [{}]))
    for logits in (torch.zeros(2, 96), torch.zeros(97, 2).T):
        with pytest.raises(InputError, match="logits"):
            sampler.draw(logits)
