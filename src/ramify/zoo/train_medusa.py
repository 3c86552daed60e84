"""Train Medusa heads for the bundled model on what it says itself.

    python -m ramify.zoo.train_medusa --out DIR            a quarter of an hour on a CPU
    python -m ramify.zoo.train_medusa --measure DIR        what the heads in DIR bring

Problems are drawn from the training split; the model answers them, greedily and sampled, and the
heads learn to say ahead what it said. Writes the heads into DIR and prints how many tokens a step
brings on held-out problems. A function of the seed, up to the rounding of the machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ramify import LLM, SamplingParams, Usage
from ramify.models.medusa import MedusaHeads, save_medusa
from ramify.zoo import bundled_model_dir
from ramify.zoo.tasks import TASKS
from ramify.zoo.training.heads import (
    HeadsConfig,
    hidden_states,
    right_shares,
    targets_of,
    train_heads,
)
from ramify.zoo.training.storage import load_model

SHORT = {"documents": {"num_tokens": 200}}
"""Documents have short answers: long ones cost more and teach the same."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a run depends on."""

    problems: dict[str, int] = field(
        default_factory=lambda: {"puzzle": 4000, "sort": 600, "merge": 400, "documents": 400}
    )
    temperatures: tuple[float, ...] = (0.0, 1.0)
    heldout: int = 100  # problems of each family
    heads: HeadsConfig = field(default_factory=HeadsConfig)


@dataclass(frozen=True, kw_only=True)
class Text:
    """What a model read and said."""

    prompt: list[int]
    answer: list[int]


def draw_prompts(recipe: Recipe, *, heldout: bool) -> list[tuple[str, str]]:
    """Problems as (family, prompt), those of one family together."""
    rng = np.random.default_rng([recipe.heads.seed, int(heldout)])
    counts = {name: recipe.heldout if heldout else n for name, n in recipe.problems.items()}
    return [
        (name, TASKS[name].generate(rng, heldout=heldout, **SHORT.get(name, {})).prompt)
        for name, count in counts.items()
        for _ in range(count)
    ]


def answers(llm: LLM, prompts: Sequence[tuple[str, str]], temperature: float) -> list[Text]:
    """What the model says to each."""
    params = [
        SamplingParams(temperature=temperature, max_tokens=TASKS[name].max_tokens, seed=seed)
        for seed, (name, _) in enumerate(prompts)
    ]
    found = []
    for first in range(0, len(prompts), 256):
        part = slice(first, first + 256)
        outputs = llm.generate([prompt for _, prompt in prompts[part]], params[part])
        found += [
            Text(prompt=output.prompt_token_ids, answer=output.outputs[0].token_ids)
            for output in outputs
        ]
    return found


def examples(texts: Sequence[Text], num_heads: int) -> tuple[Tensor, Tensor]:
    """Hidden states [n, hidden] from a prompt's last token on, and targets [n, num_heads]."""
    model, _ = load_model(bundled_model_dir(), "cpu")
    whole = [[*text.prompt, *text.answer] for text in texts]
    hidden, targets = [], []
    for place, states in hidden_states(model, whole):
        begin = len(texts[place].prompt) - 1
        hidden.append(states[begin:].clone())
        targets.append(targets_of(whole[place], begin, num_heads))
    return torch.cat(hidden), torch.cat(targets)


def acceptance(directory: Path, recipe: Recipe) -> dict[str, Usage]:
    """What greedy decoding of held-out problems costs with the heads, family by family."""
    config = {"method": "medusa", "model": str(directory), "adaptive": False}
    llm = LLM("ramify-tiny", device="cpu", num_slots=1 << 14, speculative_config=config)
    prompts = draw_prompts(recipe, heldout=True)
    costs = {}
    for name in recipe.problems:
        params = SamplingParams(temperature=0.0, max_tokens=TASKS[name].max_tokens)
        mine = [prompt for family, prompt in prompts if family == name]
        total = Usage()
        # in a crowd a branch gets fewer rows for its draft
        groups = [mine[first : first + 16] for first in range(0, len(mine), 16)]
        for output in (output for group in groups for output in llm.generate(group, params)):
            total.verified_steps += output.usage.verified_steps
            total.drafted_tokens += output.usage.drafted_tokens
            total.accepted_tokens += output.usage.accepted_tokens
        costs[name] = total
    return costs


def run(recipe: Recipe, out: Path) -> dict[str, Usage]:
    """Train, save, read back and measure; prints as it goes."""
    began_s = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began_s:6.1f} s  {text}", flush=True)

    torch.manual_seed(recipe.heads.seed)
    llm = LLM("ramify-tiny", device="cpu", num_slots=1 << 15, max_rows=2048)
    prompts = draw_prompts(recipe, heldout=False)
    texts = [text for heat in recipe.temperatures for text in answers(llm, prompts, heat)]
    hidden, targets = examples(texts, recipe.heads.num_heads)
    say(f"{len(texts)} answers, {len(hidden)} hidden states")
    heads = MedusaHeads.beside(
        llm.engine.executor.model.head_weight,
        num_heads=recipe.heads.num_heads,
        num_blocks=recipe.heads.num_blocks,
    )
    loss = train_heads(heads, hidden, targets, recipe.heads)
    save_medusa(heads, out)
    say(f"loss {loss:.3f}")
    tests = answers(llm, draw_prompts(recipe, heldout=True), 0.0)
    shares = right_shares(heads, *examples(tests, recipe.heads.num_heads))
    say("right first guesses, held out: " + ", ".join(f"{share:.1%}" for share in shares))
    costs = acceptance(out, recipe)
    say(report(costs))
    return costs


def report(costs: dict[str, Usage]) -> str:
    """A line for each family."""
    return "\n".join(
        f"{name}: {usage.tokens_per_verified_step:.2f} tokens per step, "
        f"{usage.acceptance_rate:.1%} of {usage.drafted_tokens} drafted tokens accepted"
        for name, usage in costs.items()
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="directory to write")
    what.add_argument("--measure", type=Path, help="directory to read, and train nothing")
    parser.add_argument("--heads", type=int, default=HeadsConfig.num_heads)
    parser.add_argument("--steps", type=int, default=HeadsConfig.num_steps)
    parser.add_argument("--seed", type=int, default=HeadsConfig.seed)
    args = parser.parse_args()
    config = HeadsConfig(num_heads=args.heads, num_steps=args.steps, seed=args.seed)
    recipe = Recipe(heads=config)
    if args.measure is None:
        run(recipe, args.out)
    else:
        print(report(acceptance(args.measure, recipe)))


if __name__ == "__main__":
    main()
