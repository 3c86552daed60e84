"""Rows and their masks: shared by siblings, and stronger than `min_tokens`."""

from __future__ import annotations

import pytest
import torch

from ramify import LLM, SamplingParams, StructuredOutput
from ramify.core.seeds import mix64
from ramify.engine.sample import SampleRow
from ramify.engine.structured.draw import draw
from ramify.engine.structured.masks import contains
from ramify.engine.structured.state import GrammarState

EOS = 2


def make_row(grammar: GrammarState | None, at: int = 0, **parts: object) -> SampleRow:
    params = SamplingParams()
    row = SampleRow(row=0, params=params, seed=mix64(at) >> 1, position=9, grammar=grammar)
    for name, value in parts.items():
        setattr(row, name, value)
    return row


def text_tokens(llm: LLM, *texts: str) -> set[int]:
    return {llm.engine.live.codec.encode(text)[0] for text in texts}


def test_siblings_share_one_mask_and_draw_apart(llm: LLM) -> None:
    state = llm.engine.live.rules.grammars.start(StructuredOutput(regex="[0-9]x"))
    rows = [make_row(state, at) for at in range(40)] + [make_row(None, 99)]
    drawn = draw(torch.zeros(1, 512), rows, llm.engine.live)
    assert len({id(row.mask) for row in rows[:40]}) == 1 and rows[40].mask is None
    tokens = {token.token_id for token in drawn[:40] if token is not None}
    assert len(tokens) > 4 and tokens <= text_tokens(llm, *"0123456789")
    # log-probabilities are those of the model, before the mask
    assert drawn[0] is not None
    assert drawn[0].logprob == pytest.approx(-torch.tensor(512.0).log().item())


def test_the_end_may_be_drawn_where_the_text_may_end_and_is_not_banned(llm: LLM) -> None:
    state = llm.engine.live.rules.grammars.start(StructuredOutput(regex="7*"))
    (seven,) = text_tokens(llm, "7")
    free, banned = make_row(state.fork()), make_row(state.fork(), banned=(EOS,))
    draw(torch.zeros(1, 512), [free, banned], llm.engine.live)
    assert free.mask is not None and contains(free.mask, EOS) and contains(free.mask, seven)
    assert banned.mask is not None and not contains(banned.mask, EOS)
    assert contains(banned.mask, seven) and banned.banned == (EOS,)


def test_bans_that_leave_nothing_are_lifted(llm: LLM) -> None:
    """A stop token that is the only legal text."""
    state = llm.engine.live.rules.grammars.start(StructuredOutput(regex="78"))
    (seven,) = text_tokens(llm, "7")
    row = make_row(state, banned=(EOS, seven))
    (drawn,) = draw(torch.zeros(1, 512), [row], llm.engine.live)
    assert drawn is not None and drawn.token_id == seven


def test_where_nothing_is_left_nothing_is_drawn(llm: LLM) -> None:
    state = llm.engine.live.rules.grammars.start(StructuredOutput(regex="7"))
    state.advance(tuple(text_tokens(llm, "7")))
    rows = [make_row(None), make_row(state, banned=(EOS,)), make_row(None)]
    first, nothing, last = draw(torch.zeros(1, 512), rows, llm.engine.live)
    assert nothing is None and first is not None and last is not None
