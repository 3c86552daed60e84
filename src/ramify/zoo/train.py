"""Train `ramify-tiny` from scratch.

    python -m ramify.zoo.train --out DIR            about 9 minutes on one H200
    python -m ramify.zoo.train --smoke --out DIR    about a minute on a CPU: a smaller model

The data are a function of the seed alone; the number of steps is fixed, so two runs differ only by
the rounding of the GPU's reductions. Writes the model directory, `train-log.jsonl` and
`accuracy.json` below DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch

from ramify.zoo.training.accuracy import AccuracyConfig, measure
from ramify.zoo.training.feed import batches
from ramify.zoo.training.loop import Log, LoopConfig, describe, train
from ramify.zoo.training.model import TinyConfig, TinyLlama
from ramify.zoo.training.optim import OptimConfig
from ramify.zoo.training.packing import DataConfig
from ramify.zoo.training.puzzle_data import PuzzleData
from ramify.zoo.training.storage import load_model, save_model


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a run depends on."""

    model: TinyConfig
    data: DataConfig
    optim: OptimConfig
    loop: LoopConfig
    accuracy: AccuracyConfig | None
    device: str


FULL = Recipe(
    model=TinyConfig(),
    data=DataConfig(),
    optim=OptimConfig(),
    loop=LoopConfig(num_steps=10000),
    accuracy=AccuracyConfig(),
    device="cuda",
)

SMOKE = Recipe(
    model=TinyConfig(
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
    ),
    data=DataConfig(rows=4, row_length=512, max_number=6),
    optim=OptimConfig(warmup_steps=10),
    loop=LoopConfig(num_steps=100, log_every=20),
    accuracy=AccuracyConfig(num_problems=4, num_long=0, num_samples=2),
    device="cpu",
)


def run(recipe: Recipe, out: Path, num_workers: int) -> list[float]:
    """Train, save, read back and measure; returns the losses of the logged intervals."""
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    log = Log(out / "train-log.jsonl")
    puzzles = PuzzleData(recipe.data.max_number)
    feed = batches(recipe.data, puzzles, recipe.loop.num_steps, num_workers)
    # the workers fork here, before the GPU is touched
    first = next(feed)
    torch.manual_seed(recipe.data.seed)
    torch.set_float32_matmul_precision("high")
    model = TinyLlama(recipe.model).to(recipe.device)
    configs = {"model": recipe.model, "data": recipe.data, "optim": recipe.optim}
    log.write("start", problems=len(puzzles.state), **describe(model, **configs))
    losses = train(model, chain([first], feed), recipe.optim, recipe.loop, log, out)
    save_model(model, out)
    log.write("saved", train_s=round(time.monotonic() - started, 1))
    if recipe.accuracy is not None:
        table = measure(*load_model(out, recipe.device), recipe.accuracy)
        (out / "accuracy.json").write_text(json.dumps(table, indent=1) + "\n")
        for title, row in table.items():
            log.write("accuracy", case=title, **row)
    return losses


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--smoke", action="store_true", help="a small model on a CPU")
    parser.add_argument(
        "--workers",
        type=int,
        default=max(1, (os.cpu_count() or 2) - 2),
        help="processes that make data (0: none)",
    )
    args = parser.parse_args()
    run(SMOKE if args.smoke else FULL, args.out, args.workers)


if __name__ == "__main__":
    main()
