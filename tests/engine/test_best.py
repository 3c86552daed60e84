"""The ranking of continuations against a plain sort in float64, with ties and impossible tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ramify.engine import best
from ramify.engine.best import merge, queue_continuations
from ramify.search.controller import Candidates


def sorted_out(
    logits: torch.Tensor, logprobs: np.ndarray, count: int
) -> list[tuple[int, int, float]]:
    """(branch, token, sum) by sum, then branch, then token; the sums as a host would add them."""
    added = logits.float().log_softmax(-1).double().numpy()
    sums = added + logprobs[:, None]
    places = [(-sums[b, t], b, t) for b in range(len(sums)) for t in range(sums.shape[1])]
    return [(b, t, -s) for s, b, t in sorted(places)[:count] if s < np.inf]


def as_list(found: Candidates) -> list[tuple[int, int, float]]:
    return list(zip(*(column.tolist() for column in found), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "vocab", "count"), [(1, 3, 8), (2, 300, 5), (7, 1000, 30), (40, 256, 80), (3, 700, 99)]
)
def test_equals_a_sort(rows: int, vocab: int, count: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(rows)
    logits = torch.randn((rows, vocab), generator=generator).to(dtype)
    logprobs = -np.random.default_rng(0).random(rows)
    found = queue_continuations(logits, logprobs, count).wait()
    assert as_list(found) == sorted_out(logits, logprobs, count)


def test_equal_sums_go_by_branch_then_by_token() -> None:
    """Three values only, so that nearly everything ties, inside blocks and across them."""
    logits = torch.arange(5 * 900).reshape(5, 900).remainder(7).remainder(3).float()
    logits[3] = logits[1]
    for count in (1, 10, 700, 4500):
        found = queue_continuations(logits, np.zeros(5), count).wait()
        assert as_list(found) == sorted_out(logits, np.zeros(5), count)


def test_impossible_tokens_are_left_out() -> None:
    logits = torch.full((2, 600), -torch.inf)
    logits[0, 599], logits[1, 0], logits[1, 300] = 1.0, 2.0, 2.0
    found = queue_continuations(logits, np.array([-1.0, -2.0]), 8).wait()
    assert [(b, t) for b, t, _ in as_list(found)] == [(0, 599), (1, 0), (1, 300)]


@pytest.mark.parametrize("vocab", [40, 300, 1000])
def test_masks_leave_tokens_out_and_probabilities_as_they_are(vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    allowed = rng.random((5, -(-vocab // 32) * 32)) < 0.1
    allowed[2] = False
    masks = np.packbits(allowed, axis=1, bitorder="little").view(np.int32)
    logits = torch.randn((5, vocab), generator=torch.Generator().manual_seed(0))
    logprobs = -rng.random(5)
    every = sorted_out(logits, logprobs, logits.numel())
    wanted = [(b, t, s) for b, t, s in every if allowed[b, t]]
    assert as_list(queue_continuations(logits, logprobs, 12, masks).wait()) == wanted[:12]
    assert as_list(queue_continuations(logits, logprobs, 5 * vocab, masks).wait()) == wanted


def test_lists_of_parts_merge_to_the_whole() -> None:
    logits = torch.arange(6 * 40).reshape(6, 40).remainder(11).float()
    logprobs = np.array([0.0, -1.0, 0.0, -0.5, -1.0, 0.0])
    parts = []
    for begin, end in ((0, 1), (1, 4), (4, 6)):
        part = queue_continuations(logits[begin:end], logprobs[begin:end], 25).wait()
        parts.append(part._replace(branch=part.branch + begin))
    assert as_list(merge(parts, 25)) == sorted_out(logits, logprobs, 25)


@pytest.mark.gpu
def test_a_gpu_ranks_as_the_cpu_does() -> None:
    """The sums may differ in their last bits; the order of equal ones may not."""
    logits = torch.randn(128, 128256).bfloat16()
    logits[5], logits[9] = logits[4], logits[2]
    logprobs = -np.random.default_rng(0).integers(0, 4, 128).astype(np.float64)
    here = queue_continuations(logits, logprobs, 256).wait()
    there = queue_continuations(logits.cuda(), logprobs, 256).wait()
    np.testing.assert_allclose(there.logprob, here.logprob, rtol=1e-6)
    far = np.flatnonzero(np.diff(here.logprob) < -1e-5)[-1] + 1  # cut where no tie is
    places = (there.branch * logits.shape[1] + there.token)[:far]
    assert sorted(places) == sorted((here.branch * logits.shape[1] + here.token)[:far])
    ties = np.diff(there.logprob) == 0.0
    assert ties.any() and (np.diff(there.branch * logits.shape[1] + there.token)[ties] > 0).all()


def test_blocks_are_smaller_than_rows() -> None:
    """Else the cases above would not tell blocks from rows."""
    assert best.BLOCK < 300
