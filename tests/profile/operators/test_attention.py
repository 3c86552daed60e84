"""Which kind of attention a call is."""

from __future__ import annotations

import pytest
import torch

from ramify.profile.operators import kinds
from ramify.profile.operators.attention import (
    Caller,
    attention_kind,
    attention_shape,
    context_length,
    kv_source,
)


def kind(q_len, kv_len, *, path="m.attn", context=None, frames=None, batch=2, causal=False):
    q, k = (torch.empty(batch, 4, n, 8, device="meta") for n in (q_len, kv_len))
    caller = Caller(path, context)
    shape = attention_shape({"query": q, "key": k, "value": k, "is_causal": causal}, caller)
    return attention_kind(shape, caller, frames)


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        (kinds.SPATIAL, {"q_len": 64, "kv_len": 64}),
        (kinds.CROSS, {"q_len": 64, "kv_len": 77}),
        (kinds.CROSS, {"q_len": 77, "kv_len": 77, "context": 77}),  # as many queries as words
        (kinds.SPATIAL, {"q_len": 64, "kv_len": 141, "context": 77}),  # text among its own keys
        (kinds.SPATIAL, {"q_len": 141, "kv_len": 141, "context": 77}),  # one joint sequence
        (kinds.PREFILL, {"q_len": 64, "kv_len": 64, "causal": True}),
        (kinds.DECODE, {"q_len": 1, "kv_len": 65}),
        (kinds.DECODE, {"q_len": 1, "kv_len": 1}),
        (kinds.CROSS, {"q_len": 1, "kv_len": 128, "context": 128}),
        (kinds.TEMPORAL, {"q_len": 16, "kv_len": 16, "path": "m.temp_attentions.0.attn1"}),
        (kinds.TEMPORAL, {"q_len": 6, "kv_len": 6, "path": "m.temporal.0", "causal": True}),
        (kinds.TEMPORAL, {"q_len": 16, "kv_len": 16, "frames": 16, "batch": 1024}),
        (kinds.SPATIAL, {"q_len": 16, "kv_len": 16, "frames": 16, "batch": 2}),
    ],
)
def test_kinds(expected, arguments):
    assert kind(**arguments) == expected


def test_keys_of_both_sequences_are_told_from_either():
    assert kv_source(64, 141, 77) == "self+context"
    assert kv_source(64, 77, 77) == "context" and kv_source(64, 64, 77) == "self"


def test_a_context_is_found_by_name_and_by_position():
    class Block(torch.nn.Module):
        def forward(self, hidden_states, encoder_hidden_states=None):
            return hidden_states

    x, text = torch.ones(2, 64, 8), torch.ones(2, 77, 8)
    assert context_length(Block(), (x,), {"encoder_hidden_states": text}) == 77
    assert context_length(Block(), (x, text), {}) == 77
    assert context_length(Block(), (x,), {}) is None
