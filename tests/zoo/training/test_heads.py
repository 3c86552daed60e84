"""What heads are to say, the states they read, and that they learn it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ramify.models.medusa import MedusaHeads
from ramify.testing.models import save_tiny_llama
from ramify.zoo.train_medusa import HeadsConfig, Recipe, run
from ramify.zoo.training.heads import (
    NOTHING,
    hidden_states,
    right_shares,
    targets_of,
    train_heads,
)


def test_head_k_is_to_say_what_comes_k_places_after_the_next_token() -> None:
    tokens = [10, 11, 12, 13, 14]
    got = targets_of(tokens, 1, 2)
    # behind token 11 comes 12, which the model says itself; then 13 and 14
    assert got.tolist() == [[13, 14], [14, NOTHING], [NOTHING, NOTHING], [NOTHING, NOTHING]]
    assert targets_of(tokens, 4, 3).tolist() == [[NOTHING] * 3]


def test_padding_changes_no_state(tmp_path: Path) -> None:
    model = save_tiny_llama(tmp_path)
    texts = [[5, 6, 7, 8, 9], [50], [20, 21, 22]]
    found = dict(hidden_states(model, texts, rows=2))
    assert sorted(found) == [0, 1, 2]
    for place, text in enumerate(texts):
        with torch.no_grad():
            wanted = model.model(torch.tensor([text])).last_hidden_state[0]
        torch.testing.assert_close(found[place], wanted, rtol=1e-4, atol=1e-5)


def test_heads_learn_a_text_that_repeats() -> None:
    torch.manual_seed(0)
    embedding, text = torch.randn(7, 16), [0, 1, 2, 3, 4, 5, 6] * 30
    hidden, targets = embedding[torch.tensor(text)], targets_of(text, 0, 3)
    heads = MedusaHeads.beside(torch.randn(16, 7), num_heads=3)
    before = right_shares(heads, hidden, targets)
    config = HeadsConfig(num_heads=3, num_steps=100, rows=64, learning_rate=0.03)
    assert train_heads(heads, hidden, targets, config) < 0.1
    assert right_shares(heads, hidden, targets) == [1.0, 1.0, 1.0] != before


@pytest.mark.slow
def test_a_short_run_makes_heads_that_bring_tokens(tmp_path: Path) -> None:
    config = HeadsConfig(num_heads=3, num_steps=200, rows=256)
    recipe = Recipe(problems={"puzzle": 60, "sort": 20}, heldout=8, heads=config)
    costs = run(recipe, tmp_path)
    assert all(usage.tokens_per_verified_step > 1.3 for usage in costs.values())
