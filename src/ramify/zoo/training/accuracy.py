"""Held-out accuracy of a saved model, read back through transformers: greedy and best of n.

Decoding recomputes the whole prefix for every token, which for these lengths is simple and quick
enough. `best_of_n` counts a problem as solved when any of n samples is right by the checker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ramify.zoo.tasks import JUDGE_SUFFIX, NO, TASKS, YES, Problem
from ramify.zoo.tasks import puzzle_moves as moves
from ramify.zoo.tasks.puzzle import line_of
from ramify.zoo.training.vocab import EOS, PAD

BATCH_TOKENS = 400_000


@dataclass(frozen=True, kw_only=True)
class AccuracyConfig:
    """How many held-out problems, and how many samples of each."""

    num_problems: int = 400
    num_long: int = 100  # problems of the long documents; 0 leaves them out
    num_samples: int = 16
    temperature: float = 1.0
    seed: int = 1


CASES: tuple[tuple[str, str, dict[str, int]], ...] = (
    ("puzzle", "puzzle", {}),
    ("puzzle, at most 2 winning first moves", "puzzle", {"max_winning": 2}),
    ("sort, 8 to 32 digits", "sort", {}),
    ("sort, 32 digits", "sort", {"size": 32}),
    ("merge, 8 to 32 digits", "merge", {}),
    ("documents, 1 hop, 150 to 600 tokens", "documents", {"hops": 1}),
    ("documents, 2 hops, 150 to 600 tokens", "documents", {"hops": 2}),
    ("documents, 1 hop, about 3000 tokens", "documents", {"hops": 1, "num_tokens": 3000}),
    ("documents, 2 hops, about 3000 tokens", "documents", {"hops": 2, "num_tokens": 3000}),
)


def measure(model: Any, tokenizer: Any, config: AccuracyConfig) -> dict[str, dict[str, float]]:
    """Greedy accuracy of every case, best of n for the puzzles, and the judge's accuracy."""
    table: dict[str, dict[str, float]] = {}
    for title, name, shape in CASES:
        rng = np.random.default_rng(config.seed)
        count = config.num_long if "num_tokens" in shape else config.num_problems
        if count == 0:
            continue
        problems = [TASKS[name].generate(rng, heldout=True, **shape) for _ in range(count)]
        table[title] = {"problems": count, "greedy": solved_share(model, tokenizer, problems)}
        if name == "puzzle":
            share = solved_share(
                model, tokenizer, problems, config.num_samples, config.temperature, config.seed
            )
            table[title][f"best_of_{config.num_samples}"] = share
    table |= judge_accuracy(model, tokenizer, config)
    return table


def solved_share(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    num_samples: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> float:
    """The share of problems of one family that some completion solves."""
    task = TASKS[problems[0].task]
    prompts = [p.prompt for p in problems for _ in range(num_samples)]
    texts = complete(model, tokenizer, prompts, task.max_tokens, temperature, seed)
    right = [
        any(task.check(p, text).solved for text in texts[i * num_samples : (i + 1) * num_samples])
        for i, p in enumerate(problems)
    ]
    return sum(right) / len(right)


@torch.inference_mode()
def complete(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Continue each prompt to <eos> or max_tokens; temperature 0 is greedy."""
    generator = torch.Generator(model.device).manual_seed(seed)
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    per_batch = max(1, BATCH_TOKENS // (max(map(len, encoded)) + max_tokens))
    texts: list[str] = []
    for begin in range(0, len(encoded), per_batch):
        part = encoded[begin : begin + per_batch]
        for prompt, ids in zip(
            part, _decode(model, part, max_tokens, temperature, generator), strict=True
        ):
            texts.append(tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True))
    return texts


def judge(model: Any, tokenizer: Any, states: Sequence[str]) -> np.ndarray:
    """The model's probability of yes, among yes and no, after each state text."""
    yes, no = (tokenizer.encode(label, add_special_tokens=False)[0] for label in (YES, NO))
    encoded = [tokenizer.encode(state + JUDGE_SUFFIX) for state in states]
    with torch.inference_mode():
        logits = _last_logits(model, encoded)
    return torch.sigmoid(logits[:, yes] - logits[:, no]).cpu().numpy()


def judge_accuracy(
    model: Any, tokenizer: Any, config: AccuracyConfig
) -> dict[str, dict[str, float]]:
    """How often the judge is right on states of held-out puzzles, half of them dead ends."""
    rng = np.random.default_rng(config.seed)
    problems = [TASKS["puzzle"].generate(rng, heldout=True) for _ in range(config.num_problems)]
    table = {}
    for depth in (1, 2):
        states, truth = [], []
        for problem in problems:
            for reachable in (True, False):
                text = _random_state(rng, problem, depth, reachable)
                if text is not None:
                    states.append(problem.prompt + text)
                    truth.append(reachable)
        right = (judge(model, tokenizer, states) > 0.5) == np.array(truth)
        table[f"judge, {4 - depth} numbers left"] = {
            "states": len(states),
            "greedy": float(right.mean()),
        }
    return table


def _random_state(
    rng: np.random.Generator, problem: Problem, depth: int, reachable: bool
) -> str | None:
    """`depth` legal lines that end in a state from which the target is reachable, or is not."""
    numbers = np.sort(np.array([problem.meta["numbers"]]), axis=1)
    finals = moves.final_values(numbers)[0]
    hit = (finals == problem.meta["target"]).any(axis=(1, 2) if depth == 1 else 2)
    legal = (finals >= 0).any(axis=(1, 2) if depth == 1 else 2)
    choices = np.argwhere(hit if reachable else legal & ~hit)
    if len(choices) == 0:
        return None
    text = ""
    for move in rng.choice(choices).tolist():
        a, b, result, numbers = moves.apply_moves(numbers, np.array([move]))
        left = numbers[0].tolist()
        text += line_of(int(a[0]), moves.OPS[move % 4], int(b[0]), int(result[0]), left)
    return text


def _decode(
    model: Any,
    prompts: list[list[int]],
    max_tokens: int,
    temperature: float,
    generator: torch.Generator,
) -> list[list[int]]:
    """Grow one batch token by token."""
    rows = [list(prompt) for prompt in prompts]
    open_rows = list(range(len(rows)))
    for _ in range(max_tokens):
        logits = _last_logits(model, [rows[i] for i in open_rows])
        if temperature > 0:
            probs = torch.softmax(logits / temperature, dim=-1)
            chosen = torch.multinomial(probs, 1, generator=generator)[:, 0].tolist()
        else:
            chosen = logits.argmax(-1).tolist()
        for i, token in zip(open_rows, chosen, strict=True):
            rows[i].append(token)
        open_rows = [i for i in open_rows if rows[i][-1] != EOS]
        if not open_rows:
            break
    return rows


def _last_logits(model: Any, rows: list[list[int]]) -> torch.Tensor:
    """Logits after the last token of each row, [rows, vocab]; padding stands to the right."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (width - len(row)) for row in rows], device=model.device)
    last = torch.tensor([len(row) - 1 for row in rows], device=model.device)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    return model.lm_head(hidden[torch.arange(len(rows), device=model.device), last]).float()
