"""Small ones on a CPU: shapes, causality, and the size of the paper's."""

from __future__ import annotations

import pytest
import torch

from ramify.profile.architectures.phenaki import MaskedVideoTransformer, VideoTokenDecoder
from ramify.profile.model import characterise
from ramify.profile.operators import kinds


def test_a_frame_does_not_see_the_frames_after_it():
    decoder = VideoTokenDecoder(width=16, layers=1, heads=2, vocab_size=11, patch=2).eval()
    ids = torch.randint(11, (5, 6))
    changed = ids.clone()
    changed[3] = (ids[3] + 1) % 11
    before, after = decoder(ids), decoder(changed)
    assert before.shape == (5, 6, 3 * 2 * 2 * 2)
    same = (before == after).flatten(1).all(1)
    assert same.tolist() == [True, True, True, False, False]


def test_tokens_see_all_tokens_and_the_text():
    model = MaskedVideoTransformer(16, 2, 2, 11, context_width=8, max_tokens=20).eval()
    ids, text = torch.randint(11, (2, 20)), torch.randn(2, 4, 8)
    logits = model(ids, text)
    assert logits.shape == (2, 20, 11)
    assert not torch.equal(logits, model(ids, text + 1))
    ids[:, -1] = (ids[:, -1] + 1) % 11
    assert not torch.equal(logits[:, 0], model(ids, text)[:, 0])


def test_the_preset_has_the_papers_size():
    report = characterise("phenaki", only=["denoiser", "video decoder"])
    denoiser, decoder = report.components
    assert denoiser.num_params == pytest.approx(1.8e9, rel=0.03)
    lengths = {(call.kind, call.q_len) for call in denoiser.attention}
    assert lengths == {(kinds.SPATIAL, 1536), (kinds.CROSS, 1536)}
    assert {call.kind for call in decoder.attention} == {kinds.SPATIAL, kinds.TEMPORAL}
