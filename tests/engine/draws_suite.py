"""Draws that follow one another on the device: those of the CPU, and those of steps that wait.

Not collected by itself: test_device_sample.py runs it in a process of its own, in Triton's
interpreter (TRITON_INTERPRET=1 has to be set before the kernels are imported) or on a GPU.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ramify import SamplingParams
from ramify.core.seeds import mix64
from ramify.engine.device_draws import DeviceDraws
from ramify.engine.device_sample import DeviceSampler, sample_on_device
from ramify.engine.draws import MOST_TOP, PLAIN, DrawnRows, DrawTable, HostDraws, alternatives
from ramify.engine.sample import History, SampleRow

ON_GPU = os.environ.get("TRITON_INTERPRET") != "1"
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
VOCABS = (1000, 32003, 128256) if ON_GPU else (97, 4100)
CAPACITY = 16
EDITS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.3},
    {"presence_penalty": 1.1, "frequency_penalty": 0.37},
    {"repetition_penalty": 0.8, "frequency_penalty": -0.23, "logit_bias": {3: 4.5, 9: -8.0}},
    {"logit_bias": {5: 3.0}, "temperature": 0.0},
    {"banned": (1, 2, 3, 50), "top_k": 9},
    {"temperature": 0.0, "presence_penalty": 0.4},
    {},
]
REPORTS: list[dict[str, Any]] = [{"logprobs": k} for k in (0, 1, 5, MOST_TOP)]


def make_rows(rules: list[dict[str, Any]], vocab: int) -> list[SampleRow]:
    rng = np.random.default_rng(vocab)
    prompt = frozenset(rng.integers(0, vocab, vocab // 4).tolist())
    rows = []
    for i, rule in enumerate(rules):
        params = SamplingParams(**{name: rule[name] for name in rule if name != "banned"})
        counts = Counter(rng.integers(0, vocab, vocab // 5).tolist())
        rows.append(
            SampleRow(
                row=i,
                params=params,
                seed=mix64(i) >> 1,
                position=70 + 13 * i,
                banned=rule.get("banned", ()),
                history=History(prompt, counts) if params.penalises else None,
            )
        )
    return rows


def make_logits(num_steps: int, rows: int, vocab: int) -> list[Tensor]:
    """Few distinct values, so that alternatives tie and tokens are drawn again and again."""
    logits = torch.randn(num_steps, rows, vocab) * 2.0
    logits[:, :, :20] += 5.0
    return list((logits * 4).round() / 4)


def as_host(drawn: DrawnRows[Tensor]) -> list[Tensor]:
    return [array.cpu().clone() for array in (drawn.tokens, drawn.logprobs, *(drawn.report or ()))]


@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("rules", [EDITS, REPORTS, EDITS + REPORTS], ids=["edits", "top", "both"])
def test_the_draws_of_the_cpu_and_of_steps_that_wait(
    rules: list[dict[str, Any]], vocab: int
) -> None:
    """Tokens equal the CPU's; to the bit all is what a step gives that knows the books."""
    rows, draws, host = make_rows(rules, vocab), DeviceDraws(CAPACITY, vocab, DEVICE), HostDraws()
    table = DrawTable.of(rows)
    draws.fill(table, table.kind)
    host.fill(table, table.kind)
    for logits in make_logits(5, len(rows), vocab):
        on_device = logits.to(DEVICE)
        tokens, logprobs, *report = as_host(draws.draw(on_device, table.kind))
        assert tokens.tolist() == host.draw(logits, table.kind).tokens.tolist()
        wanted = sample_on_device(on_device, rows)
        assert tokens.tolist() == [token.token_id for token in wanted]
        assert logprobs.tolist() == [token.logprob for token in wanted]
        if report:
            ranks, top = report
            assert ranks.tolist() == [token.rank for token in wanted]
            for i, (row, others) in enumerate(
                zip(rows, alternatives(top.numpy(), MOST_TOP), strict=True)
            ):
                assert others[: row.params.logprobs or 0] == wanted[i].top
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.position += 1
            if row.history is not None:
                row.history.generated[token] += 1


@pytest.mark.parametrize("vocab", VOCABS)
def test_alternatives_are_in_order_and_ties_by_index(vocab: int) -> None:
    logits = make_logits(1, 3, vocab)[0]
    logits[1, ::2] = -torch.inf
    logits[2] = torch.where(torch.arange(vocab) % 3 == 0, -0.0, 0.0)
    rows = make_rows([{"logprobs": MOST_TOP}] * 3, vocab)
    exact = logits.double().log_softmax(dim=-1)
    for row, found in enumerate(sample_on_device(logits.to(DEVICE), rows)):
        # a zero below zero is below zero here
        signed = [(-v, np.signbit(v), i) for i, v in enumerate(logits[row].tolist())]
        assert [token for token, _ in found.top] == [i for *_, i in sorted(signed)[:MOST_TOP]]
        wanted = [exact[row, token].item() for token, _ in found.top]
        assert [p for _, p in found.top] == pytest.approx(wanted, abs=1e-5)


def test_a_run_forgets_the_one_before() -> None:
    vocab = 97
    draws = DeviceDraws(CAPACITY, vocab, DEVICE)
    for rules in (EDITS, EDITS[:2], [{}], EDITS[3:], REPORTS[:1]):
        rows = make_rows(rules, vocab)
        table = DrawTable.of(rows)
        draws.fill(table, table.kind)
        for logits in make_logits(3, len(rows), vocab):
            found = draws.draw(logits.to(DEVICE), table.kind)
            wanted = sample_on_device(logits.to(DEVICE), rows)
            assert found.tokens.tolist() == [token.token_id for token in wanted]
            rows = [replace(row, position=row.position + 1) for row in rows]
            for row, token in zip(rows, wanted, strict=True):
                if row.history is not None:
                    row.history.generated[token.token_id] += 1


def test_rows_that_pad_a_step_draw_and_count_nothing() -> None:
    vocab = 97
    draws = DeviceDraws(CAPACITY, vocab, DEVICE)
    table = DrawTable.of(make_rows(EDITS[:3], vocab))
    draws.fill(table, table.kind)
    before = draws._counts.counts.clone()
    tokens = draws.draw(make_logits(1, 8, vocab)[0].to(DEVICE), table.kind).tokens
    changed = (draws._counts.counts != before).nonzero().tolist()
    assert changed == [[row, token] for row, token in enumerate(tokens[:3].tolist())]


def test_a_plain_run_launches_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = DeviceDraws(CAPACITY, 97, DEVICE)
    rows = make_rows([{"top_k": 5, "temperature": 0.7}] * 3, 97)
    draws.fill(DrawTable.of(rows), PLAIN)
    for name in ("top", "_edit"):
        monkeypatch.setattr(DeviceSampler, name, None)
    found = draws.draw(make_logits(1, 3, 97)[0].to(DEVICE), PLAIN)
    assert found.report is None and not {"_counts", "_edited"} & vars(draws).keys()


@pytest.mark.gpu
def test_a_graph_draws_what_its_launches_do() -> None:
    """Captured once with nothing to draw, replayed over runs of two kinds of rules."""
    vocab, count = 128256, 12
    graph_draws, plain_draws = (DeviceDraws(CAPACITY, vocab, DEVICE) for _ in range(2))
    kind = DrawTable.of(make_rows(EDITS + REPORTS, vocab)).kind
    inputs = torch.zeros(count, vocab, dtype=torch.bfloat16, device=DEVICE)
    graph_draws.fill(DrawTable.of([]), kind)
    graph_draws.draw(inputs, kind)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = graph_draws.draw(inputs, kind)
    for rules in (EDITS + REPORTS, REPORTS + EDITS[:4]):
        table = DrawTable.of(make_rows(rules, vocab))
        for draws in (graph_draws, plain_draws):
            draws.fill(table, kind)
        for logits in make_logits(4, count, vocab):
            inputs.copy_(logits)
            graph.replay()
            *found, top = as_host(captured)
            *wanted, wanted_top = as_host(plain_draws.draw(inputs, kind))
            for array, other in zip(found, wanted, strict=True):
                assert torch.equal(array[: len(rules)], other[: len(rules)])
            for row, rule in enumerate(rules):
                told = rule.get("logprobs", 0)
                assert torch.equal(top[row, :, :told], wanted_top[row, :, :told])
