"""The training command learns, saves and reads back; here in miniature."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ramify.zoo.train import SMOKE, run
from ramify.zoo.training.storage import load_model


def test_a_few_steps_lower_the_loss_and_save_a_model(tmp_path: Path) -> None:
    recipe = replace(
        SMOKE,
        model=replace(SMOKE.model, num_hidden_layers=1, hidden_size=32, intermediate_size=64),
        data=replace(SMOKE.data, rows=2, row_length=256, max_number=4),
        loop=replace(SMOKE.loop, num_steps=40, log_every=20),
        accuracy=None,
    )
    losses = run(recipe, tmp_path, num_workers=0)
    assert losses[-1] < losses[0] - 0.5
    model, tokenizer = load_model(tmp_path, "cpu")
    assert model.config.num_hidden_layers == 1
    assert (
        tokenizer.decode(tokenizer.encode("sort 1 2\n"), skip_special_tokens=True) == "sort 1 2\n"
    )
    events = [
        json.loads(x)["event"] for x in (tmp_path / "train-log.jsonl").read_text().splitlines()
    ]
    assert events[0] == "start"
    assert events[-1] == "saved"


@pytest.mark.slow
def test_smoke_learns_and_measures(tmp_path: Path) -> None:
    losses = run(SMOKE, tmp_path, num_workers=1)
    assert losses[-1] < 0.5 * losses[0]
    table = json.loads((tmp_path / "accuracy.json").read_text())
    assert "puzzle" in table
