"""Every drafter over real prompts: are greedy tokens those of plain decoding, and what is gained?

A fresh LLM for plain decoding and for each drafter, the same prompts in the same order, an untimed
group of others first. Tokens are compared prompt by prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Any

import numpy as np
import torch

from ramify import LLM, SamplingParams
from ramify.bench.env import environment
from ramify.bench.generation import release
from ramify.bench.speculation.rows import DrafterRow
from ramify.bench.speculation.successors import SuccessorDrafter
from ramify.core.errors import ConfigError, InputError, expected_got
from ramify.core.outputs import RequestOutput
from ramify.zoo.tasks import TASKS

PLAIN = "plain"


@dataclass(frozen=True, kw_only=True)
class DrafterBench:
    """What is measured. `settings` are those of an LLM. Raises InputError for a bad number."""

    settings: dict[str, Any]
    model_name: str
    drafters: Sequence[str]  # methods of SpeculativeConfig
    draft_model: str
    prompts: int = 200
    together: int = 8
    new_tokens: int = 64
    draft_tokens: int = 16
    is_adaptive: bool = False
    seed: int = 0
    commit: str | None = None  # of the sources, where they are a copy
    progress: Callable[[str], None] = lambda text: None
    done: Callable[[DrafterRow], None] = lambda row: None  # gets every row as soon as it is there

    def __post_init__(self) -> None:
        for name in ("prompts", "together", "new_tokens", "draft_tokens"):
            if getattr(self, name) < 1:
                raise InputError(expected_got(name, "at least 1", getattr(self, name)))

    def config(self, drafter: str) -> dict[str, Any] | None:
        """The speculative config of a drafter; None for plain decoding."""
        if drafter == PLAIN:
            return None
        own: dict[str, dict[str, Any]] = {
            "draft_model": {"model": self.draft_model},
            "custom": {"drafter": SuccessorDrafter()},
        }
        return {
            "method": drafter,
            "num_speculative_tokens": self.draft_tokens,
            "adaptive": self.is_adaptive,
            **own.get(drafter, {}),
        }


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """All prompts once."""

    outputs: list[RequestOutput]
    dtype: str
    steps: int
    wall_s: float


def bench_drafters(bench: DrafterBench) -> list[DrafterRow]:
    """Plain decoding and every drafter, a row each; a drafter that cannot be made says why.

    Raises ConfigError when the model itself cannot be loaded.
    """
    rows: list[DrafterRow] = []
    plain = _pass(bench, PLAIN)
    for drafter in (PLAIN, *bench.drafters):
        found = plain if drafter == PLAIN else _try(bench, drafter)
        row = _row(bench, drafter, found, plain)
        seconds = "not run" if row.wall_s is None else f"{row.wall_s:.2f} s"
        bench.progress(f"{drafter}: {row.reason or seconds}")
        bench.done(row)
        rows.append(row)
    return rows


def task_prompts(count: int, seed: int) -> list[str]:
    """Held-out prompts of the bundled tasks in turn."""
    rng, families = np.random.default_rng(seed), list(TASKS.values())
    return [
        families[index % len(families)].generate(rng, heldout=True).prompt for index in range(count)
    ]


def _try(bench: DrafterBench, drafter: str) -> _Pass | str:
    """A pass with a drafter, or why there is none."""
    try:
        return _pass(bench, drafter)
    except ConfigError as error:
        return str(error)


def _pass(bench: DrafterBench, drafter: str) -> _Pass:
    release(torch.device(bench.settings["device"]))
    with LLM(**{**bench.settings, "speculative_config": bench.config(drafter)}) as llm:
        _generate(llm, bench, task_prompts(bench.together, bench.seed + 1))
        steps, begin = llm.engine.num_steps, perf_counter()
        outputs = _generate(llm, bench, task_prompts(bench.prompts, bench.seed))
        return _Pass(
            outputs=outputs,
            dtype=llm.config.dtype,
            wall_s=perf_counter() - begin,
            steps=llm.engine.num_steps - steps,
        )


def _generate(llm: LLM, bench: DrafterBench, prompts: Sequence[str]) -> list[RequestOutput]:
    greedy = SamplingParams(temperature=0.0, max_tokens=bench.new_tokens)
    outputs: list[RequestOutput] = []
    rest = iter(prompts)
    while group := list(islice(rest, bench.together)):
        outputs += llm.generate(group, greedy)
    return outputs


def _row(bench: DrafterBench, drafter: str, found: _Pass | str, plain: _Pass) -> DrafterRow:
    basics: dict[str, Any] = {
        "drafter": drafter,
        "model": bench.model_name,
        "device": bench.settings["device"],
        "dtype": plain.dtype,
        "prompts": bench.prompts,
        "together": bench.together,
        "is_adaptive": bench.is_adaptive,
        "draft_tokens": bench.draft_tokens,
        "environment": environment(bench.commit),
    }
    if isinstance(found, str):
        return DrafterRow(**basics, reason=found)
    usages = [output.usage for output in found.outputs]
    verified = sum(usage.verified_steps for usage in usages)
    accepted = sum(usage.accepted_tokens for usage in usages)
    drafted = sum(usage.drafted_tokens for usage in usages)
    return DrafterRow(
        **basics,
        different=sum(map(_differs, found.outputs, plain.outputs)),
        generated_tokens=sum(usage.generated_tokens for usage in usages),
        steps=found.steps,
        verified_steps=verified,
        tokens_per_step=1 + accepted / verified if verified else 1.0,
        acceptance=accepted / drafted if drafted else 0.0,
        wall_s=found.wall_s,
        speedup=plain.wall_s / found.wall_s,
    )


def _differs(own: RequestOutput, other: RequestOutput) -> bool:
    """Whether two outputs of one prompt hold other tokens, or one of them failed."""
    if own.error is not None or other.error is not None:
        return True
    return own.outputs[0].token_ids != other.outputs[0].token_ids
