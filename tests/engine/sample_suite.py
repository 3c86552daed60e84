"""The device's sampler against the CPU's `sample`: same tokens, same log-probabilities.

Not collected by itself: test_device_sample.py runs it in a process of its own, in Triton's
interpreter (TRITON_INTERPRET=1 has to be set before the kernels are imported) or on a GPU.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ramify import SamplingParams
from ramify.core.errors import InputError
from ramify.core.seeds import gumbel_noise, mix64
from ramify.engine import device_sample
from ramify.engine.device_sample import DeviceSampler, sample_on_device
from ramify.engine.edits import edit_bound
from ramify.engine.sample import History, SampleRow, _adjust, sample, token_logprobs

ON_GPU = os.environ.get("TRITON_INTERPRET") != "1"
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
VOCABS = (1000, 32003, 128256) if ON_GPU else (97, 4100)
TEMPERATURES = [{"temperature": t} for t in (0.0, 1.0, 0.3, 2.5, 1e-4, 50.0)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small vocabularies in the interpreter still take several blocks and both ways to select."""
    if not ON_GPU:
        monkeypatch.setattr(device_sample, "FILTER_BLOCK", 1024)
        monkeypatch.setattr(device_sample, "WINDOW", 64)


def make_logits(vocab: int) -> Tensor:
    """Plain, with excluded tokens, with many equal logits, all equal, one token far above."""
    logits = torch.randn(5, vocab) * 3.0
    logits[1, ::3] = -torch.inf
    logits[2] = (logits[2] * 2).round() / 2
    logits[3] = 0.0
    logits[4, vocab // 2] = 30.0
    return logits


def make_filters(count: int, vocab: int) -> list[dict[str, Any]]:
    """Random rules; every kind of filter is off in half of them."""
    choices: dict[str, list[Any]] = {
        "top_k": [1, 2, 5, 50, vocab - 1, vocab, vocab + 10],
        "top_p": [1e-6, 0.1, 0.513, 0.9, 0.991],
        "min_p": [1e-4, 0.03, 0.3, 1.0],
    }
    return [
        {name: random.choice(values) for name, values in choices.items() if random.random() < 0.5}
        | {"temperature": random.choice([0.0, 0.01, 0.5, 1.0, 1.0, 3.0])}
        for _ in range(count)
    ]


def make_edits(count: int, vocab: int) -> list[dict[str, Any]]:
    """Random bias, bans and penalties, with a history of about a fifth of the vocabulary."""
    bias = {token: random.uniform(-9, 9) for token in random.sample(range(vocab), 9)}
    choices: dict[str, list[Any]] = {
        "logit_bias": [bias],
        "repetition_penalty": [0.7, 1.3],
        "presence_penalty": [-0.7, 1.9],
        "frequency_penalty": [-0.1, 0.3],
        "banned": [tuple(bias)[:3], tuple(random.sample(range(vocab), vocab // 4))],
    }
    history = History(
        prompt=frozenset(random.sample(range(vocab), vocab // 10)),
        generated=Counter(random.choices(range(vocab), k=vocab // 8)),
    )
    return [
        {name: random.choice(values) for name, values in choices.items() if random.random() < 0.5}
        | {"history": history, "temperature": random.choice([0.0, 0.8, 1.5])}
        for _ in range(count)
    ]


def make_rows(count: int, num_rows: int, mixes: Sequence[dict[str, Any]]) -> list[SampleRow]:
    """Draws from all rows of logits by all rules in turn."""
    rows = []
    for i in range(count):
        rules = dict(mixes[i // num_rows % len(mixes)])
        extras = ("banned", "history", "mask")
        extra = {name: rules.pop(name) for name in extras if name in rules}
        params = SamplingParams(**rules)
        seed = mix64(i) >> 1
        rows.append(SampleRow(row=i % num_rows, params=params, seed=seed, position=31 * i, **extra))
    return rows


def check(
    logits: Tensor, rows: Sequence[SampleRow], edit_capacity: int = 0, mask_capacity: int = 0
) -> None:
    """One draw more than rows is room that stays empty."""
    wanted = sample(logits.float(), rows)
    logits = logits.to(DEVICE)
    before = logits.clone()
    sampler = DeviceSampler(
        len(rows) + 1,
        logits.shape[1],
        logits.device,
        edit_capacity=edit_capacity,
        mask_capacity=mask_capacity,
    )
    sampler.batch.fill(rows)
    tokens, logprobs, ranks = sampler.draw(logits, with_ranks=True).to_host()
    assert torch.equal(logits, before)
    assert tokens == [t.token_id for t in wanted] + [0]
    assert ranks == [t.rank for t in wanted] + [0]
    assert logprobs == pytest.approx([t.logprob for t in wanted] + [0.0], abs=1e-5)


@pytest.mark.parametrize("vocab", VOCABS)
def test_tokens_at_all_temperatures(vocab: int) -> None:
    check(make_logits(vocab), make_rows(36, 5, TEMPERATURES))


@pytest.mark.parametrize("vocab", VOCABS)
def test_filters(vocab: int) -> None:
    check(make_logits(vocab), make_rows(48, 5, make_filters(16, vocab)))


@pytest.mark.parametrize("vocab", VOCABS)
def test_edits_with_and_without_filters(vocab: int) -> None:
    mixes = make_edits(6, vocab)
    mixes += [a | b for a, b in zip(make_edits(4, vocab), make_filters(4, vocab), strict=True)]
    check(make_logits(vocab), make_rows(33, 5, [*mixes, {}]), edit_capacity=33 * vocab)


def make_masks(count: int, vocab: int) -> list[dict[str, Any]]:
    """Masks of few tokens, of half of them, of all; bits behind the vocabulary mean nothing."""
    bits = np.random.rand(count, -(-vocab // 32) * 32) < np.array([[0.03], [0.5], [1.0]])[:count]
    bits[:, vocab // 3] = True
    words = np.packbits(bits, axis=1, bitorder="little").view(np.int32)
    return [{"mask": mask} for mask in words]


@pytest.mark.parametrize("vocab", VOCABS)
def test_masks_beside_edits_filters_and_rows_without(vocab: int) -> None:
    masks = make_masks(3, vocab)
    mixes = [*masks, {}]
    mixes += [a | b for a, b in zip(make_edits(3, vocab), masks, strict=True)]
    mixes += [a | b for a, b in zip(make_filters(3, vocab), masks, strict=True)]
    rows = make_rows(50, 5, mixes)
    check(make_logits(vocab), rows, edit_capacity=50 * vocab, mask_capacity=3)
    logits = make_logits(vocab)
    found = sample_on_device(logits.to(DEVICE), rows)
    assert [t.token_id for t in found] == [t.token_id for t in sample(logits, rows)]
    for row, token in zip(rows, found, strict=True):
        if row.mask is not None and row.row != 1:
            assert row.mask.view(np.uint32)[token.token_id // 32] >> token.token_id % 32 & 1


def test_more_masks_than_there_is_room_for_are_refused() -> None:
    rows = make_rows(3, 1, make_masks(3, 97))
    sampler = DeviceSampler(3, 97, DEVICE, edit_capacity=3, mask_capacity=2)
    with pytest.raises(InputError, match="masks: expected at most 2, got 3"):
        sampler.batch.fill(rows)


def test_edited_copies_are_those_of_the_cpu_to_the_bit() -> None:
    logits = make_logits(700)
    rows = make_rows(40, 5, [rules | {"temperature": 1.0} for rules in make_edits(8, 700)])
    sampler = DeviceSampler(40, 700, DEVICE, edit_capacity=40 * 700)
    sampler.batch.fill(rows)
    wanted = _adjust(logits[[row.row for row in rows]], rows)
    edited = [i for i, row in enumerate(rows) if edit_bound(row)]
    assert len(edited) > 20
    copies = sampler._edit(logits.to(DEVICE), 40)
    assert torch.equal(copies.cpu()[edited], wanted[edited])


def test_scores_that_differ_in_the_last_bit_or_not_at_all() -> None:
    """Logits that undo the noise: the winner hangs on its rounding, and on the order of equals."""
    rows = make_rows(8, 8, [{}])
    noise = gumbel_noise([row.seed for row in rows], [row.position for row in rows], 120)
    logits = 1.0 - torch.from_numpy(noise)
    scores = logits + torch.from_numpy(noise)
    assert (scores.max() - scores.min()) < 1e-5
    assert ((scores == scores.amax(dim=1, keepdim=True)).sum(dim=1) > 1).any()
    check(logits, rows)


def test_half_precision_and_strided_logits() -> None:
    logits = make_logits(3000).to(torch.float16)[:, :2500]
    assert logits.stride(0) == 3000
    mixes = [*TEMPERATURES[:3], *make_filters(3, 2500), *make_edits(2, 2500)]
    check(logits, make_rows(40, 5, mixes), edit_capacity=40 * 2500)


def test_top_p_keeps_the_lowest_indices_of_equal_tokens() -> None:
    """A quarter of 64 equal tokens is 16, of which every draw takes one."""
    logits = torch.zeros(1, 80)
    logits[0, ::5] = -9.0
    rows = make_rows(60, 1, [{"top_p": 0.2501}])
    tokens = {token.token_id for token in sample_on_device(logits.to(DEVICE), rows)}
    assert len(tokens) > 12 and max(tokens) <= 21 and not any(token % 5 == 0 for token in tokens)


def test_positions_advance_on_the_device() -> None:
    logits = torch.zeros(1, 64, device=DEVICE)
    rows = make_rows(5, 1, [{}])
    sampler = DeviceSampler(8, 64, DEVICE)
    sampler.batch.fill(rows)
    for step in range(4):
        noise = gumbel_noise([r.seed for r in rows], [r.position + step for r in rows], 64)
        assert sampler.draw(logits).tokens[:5].tolist() == noise.argmax(axis=1).tolist()
        sampler.batch.advance()


def test_a_sampler_forgets_the_batch_before() -> None:
    logits = make_logits(300)
    sampler = DeviceSampler(10, 300, DEVICE, edit_capacity=3000)
    for count, mixes in ((10, make_edits(2, 300)), (5, [{}]), (3, make_filters(1, 300))):
        rows = make_rows(count, 5, mixes)
        sampler.batch.fill(rows)
        tokens = sampler.draw(logits.to(DEVICE)).tokens.tolist()
        assert tokens[:count] == [token.token_id for token in sample(logits, rows)]


def test_lists_and_alternatives() -> None:
    logits = make_logits(500)
    rows = make_rows(20, 5, [{"logprobs": 3}, {}, {"logprobs": 5, "top_k": 4}, {"logprobs": 0}])
    found, wanted = sample_on_device(logits.to(DEVICE), rows), sample(logits, rows)
    given = token_logprobs(logits.to(DEVICE), torch.tensor([5, 6, 7, 8, 9]), [2] * 5)
    wanted += token_logprobs(logits, torch.tensor([5, 6, 7, 8, 9]), [2] * 5)
    for got, exact in zip([*found, *given], wanted, strict=True):
        assert (got.token_id, got.rank) == (exact.token_id, exact.rank)
        assert got.logprob == pytest.approx(exact.logprob, abs=1e-5)
        # equal logits may come in any order
        assert [p for _, p in got.top] == pytest.approx([p for _, p in exact.top], abs=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    sampler = DeviceSampler(2, 97, DEVICE)
    with pytest.raises(InputError, match="draws: expected at most 2"):
        sampler.batch.fill(make_rows(3, 1, [{}]))
    with pytest.raises(InputError, match="edits: expected at most 0"):
        sampler.batch.fill(make_rows(1, 1, [{"banned": (3, 4)}]))
    for logits in (torch.zeros(2, 96, device=DEVICE), torch.zeros(97, 2, device=DEVICE).T):
        with pytest.raises(InputError, match="logits"):
            sampler.draw(logits)


@pytest.mark.gpu
def test_a_graph_draws_on_as_positions_advance() -> None:
    """Captured once, replayed over three steps and a new batch; the same to the bit when redone."""
    logits = make_logits(128256).to(torch.bfloat16)
    first = make_rows(64, 5, [*TEMPERATURES, *make_filters(6, 128256)])
    second = make_rows(40, 5, [*make_filters(8, 128256), *make_edits(4, 128256)])
    sampler = DeviceSampler(64, 128256, DEVICE, edit_capacity=64 * 128256)
    on_device = logits.to(DEVICE)
    sampler.draw(on_device, with_ranks=True)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        drawn = sampler.draw(on_device, with_ranks=True)
        sampler.batch.advance()
    for rows in (first, second):
        results = []
        for _ in range(2):
            sampler.batch.fill(rows)
            for _ in range(3):
                graph.replay()
                results.append(drawn.to_host())
        assert results[:3] == results[3:]
        for step, (tokens, _, _) in enumerate(results[:3]):
            for row in rows:
                row.position += step > 0
            assert tokens[: len(rows)] == [t.token_id for t in sample(logits.float(), rows)]
