"""How much more does a search solve than plain decoding, at the same number of generated tokens?

    python -m ramify.zoo.evaluate --task puzzle --count 300 --budget 240
    python -m ramify.zoo.evaluate --task sort --size 36 --count 200 --budget 300

Held-out problems by the methods of `methods.py`: best-of-n and searches over steps with the checker
as scorer, the same budget of generated tokens per problem, and the model as judge on puzzles
(`NAME_no_judge`: without). What the judge reads is no generated token, so the table also shows all
tokens computed after the prompt. Every method meets the same problems, so the difference to
best-of-n has an interval of its own, which is narrower than the two shares' intervals suggest.
Two splits of the held-out problems never share one: settings are tuned on `tune`, numbers are
reported on `report`.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import tyro

from ramify import LLM
from ramify.core.seeds import child_seed
from ramify.engine.request import Request
from ramify.search import Controller
from ramify.zoo.intervals import paired_difference, wilson
from ramify.zoo.methods import METHODS, Setting, make_method
from ramify.zoo.tasks import Problem, get_task

BASELINE = "best_of_n"
TOGETHER = 40  # problems in the engine at once


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to evaluate."""

    task: str = field(default="puzzle", metadata={"help": "puzzle, sort, merge or documents"})
    count: int = field(default=200, metadata={"help": "held-out problems"})
    size: int | None = field(
        default=None, metadata={"help": "sort and merge: digits; training ends at 32"}
    )
    budget: int = field(default=240, metadata={"help": "generated tokens per problem"})
    split: Literal["tune", "report"] = field(
        default="report", metadata={"help": "which part of the held-out problems"}
    )
    max_winning: int | None = field(
        default=None, metadata={"help": "puzzles: at most this many first moves may win"}
    )
    methods: tuple[str, ...] = field(
        default=METHODS,
        metadata={"help": "rows of the table; NAME_no_judge is a search without its judge"},
    )
    model: str = field(default="ramify-tiny", metadata={"help": "bundled name or directory"})
    seed: int = field(default=0, metadata={"help": "of the problems and of all sampling"})
    k: tuple[int, ...] | None = field(default=None, metadata={"help": "branches, level by level"})
    width: int | None = field(default=None, metadata={"help": "thoughts expanded side by side"})
    temperature: float | None = field(default=None, metadata={"help": "of the tree's steps"})
    sample_temperature: float | None = field(default=None, metadata={"help": "of best-of-n"})
    output: Path | None = field(default=None, metadata={"help": "write the result as JSON"})


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method on one set of problems; token counts are means per problem."""

    task: str
    method: str
    settings: str
    problems: int
    solved: int
    low: float  # 95 % interval of the share solved
    high: float
    ahead: float | None  # of best-of-n's share, on the same problems, with its 95 % interval
    ahead_low: float | None
    ahead_high: float | None
    generated_tokens: float  # sampled, or appended by the beam search
    computed_tokens: float  # after the prompt, questions to the judge included


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print a markdown table, write JSON if asked."""
    options = tyro.cli(Options, args=argv, config=(tyro.conf.DisallowNone,))
    problems = heldout_problems(options)
    llm = LLM(options.model)
    outcomes = {}
    for method in options.methods:
        outcomes[method] = solve(llm, problems, method, options)
        count = sum(outcomes[method].solved)
        print(f"{method}: {count} of {len(problems)} solved", file=sys.stderr, flush=True)
    rows = make_rows(options.task, outcomes)
    print(markdown(rows))
    if options.output is not None:
        document = {"options": {**asdict(options), "output": None}, "rows": rows}
        options.output.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1))
    return 0


def heldout_problems(options: Options) -> list[Problem]:
    """Different held-out problems of one split, drawn with the seed."""
    family, rng = get_task(options.task), np.random.default_rng(options.seed)
    said = {"max_winning": options.max_winning, "size": options.size}
    shape = {name: value for name, value in said.items() if value is not None}
    problems: dict[int, Problem] = {}
    while len(problems) < options.count:
        problem = family.generate(rng, heldout=True, **shape)
        key = _identity(problem)
        if (key % 2 == 0) == (options.split == "tune"):
            problems.setdefault(key, problem)
    return list(problems.values())


def _identity(problem: Problem) -> int:
    """The same for problems that differ in the order of their numbers alone."""
    prompt = problem.prompt
    words = prompt.split() if problem.task == "documents" else sorted(prompt.split())
    return zlib.crc32(" ".join(words).encode())


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One method on all problems, in their order."""

    settings: str
    solved: list[bool]
    generated_tokens: int  # of all problems
    computed_tokens: int


def solve(llm: LLM, problems: Sequence[Problem], method: str, options: Options) -> Outcome:
    """Solve all problems one way; requests of many problems share the engine's steps.

    Raises InputError for a method that there is not.
    """
    make, words = make_method(method, _setting(llm, options))
    solved, generated, computed = [], 0, 0
    for begin in range(0, len(problems), TOGETHER):
        group = problems[begin : begin + TOGETHER]
        requests = [_submit(llm, make(problem), problem, options.seed) for problem in group]
        while not all(request.is_done for request in requests):
            llm.engine.step()
        for problem, request in zip(group, requests, strict=True):
            solved.append(get_task(problem.task).check(problem, _answer(llm, request)).solved)
            new = request.usage.computed_tokens + request.usage.cached_tokens
            computed += new - request.usage.prompt_tokens
            generated += sum(len(n.token_ids) for n in request.tree if n.parent is not None)
    return Outcome(
        settings=words, solved=solved, generated_tokens=generated, computed_tokens=computed
    )


def make_rows(task: str, outcomes: Mapping[str, Outcome]) -> list[Row]:
    """A row per method, compared with best-of-n where it is there."""
    return [_row(task, name, own, outcomes.get(BASELINE)) for name, own in outcomes.items()]


def _row(task: str, method: str, own: Outcome, baseline: Outcome | None) -> Row:
    count, num_solved = len(own.solved), sum(own.solved)
    low, high = wilson(num_solved, count)
    ahead: tuple[float | None, float | None, float | None] = (None, None, None)
    if baseline is not None and own is not baseline:
        ahead = paired_difference(own.solved, baseline.solved)
    return Row(
        task=task,
        method=method,
        settings=own.settings,
        problems=count,
        solved=num_solved,
        low=low,
        high=high,
        ahead=ahead[0],
        ahead_low=ahead[1],
        ahead_high=ahead[2],
        generated_tokens=own.generated_tokens / count,
        computed_tokens=own.computed_tokens / count,
    )


def _setting(llm: LLM, options: Options) -> Setting:
    # lists longer than those of training need longer answers
    longest = 0 if options.size is None else options.size + 8
    return Setting(
        task=options.task,
        size=options.size,
        budget_tokens=options.budget,
        answer_tokens=max(get_task(options.task).max_tokens, longest),
        eos_token_ids=llm.engine.limits.eos_token_ids,
        sample_temperature=options.sample_temperature,
        temperature=options.temperature,
        k=options.k,
        width=options.width,
    )


def _submit(llm: LLM, controller: Controller, problem: Problem, seed: int) -> Request:
    # a seed for each problem: with one for all, outcomes would hang together across problems
    seed = child_seed(seed, 1 + _identity(problem))
    ids = llm.engine.live.codec.encode_prompt(problem.prompt)
    return llm.engine.submit(controller, ids, prompt=problem.prompt, seed=seed)


def _answer(llm: LLM, request: Request) -> str:
    """The text of the best output, without special tokens."""
    if request.error is not None:
        raise request.error
    assert request.finish is not None, "a request without error has finished"
    outputs = request.finish.outputs
    tokens = request.tree.completion_ids(outputs[0]) if outputs else []
    return llm.engine.live.codec.decode(tokens, skip_special_tokens=True)


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    names = ("task", "method", "settings", "solved", "95 % interval", "ahead of best-of-n")
    header = (*names, "generated tokens", "computed tokens")
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for row in rows:
        share = f"{100 * row.solved / row.problems:.1f} % ({row.solved} of {row.problems})"
        interval = f"{100 * row.low:.1f} to {100 * row.high:.1f} %"
        tokens = f"{row.generated_tokens:.0f}", f"{row.computed_tokens:.0f}"
        cells = (row.task, row.method, row.settings, share, interval, _ahead(row), *tokens)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ahead(row: Row) -> str:
    """Points ahead of best-of-n, with their interval."""
    if row.ahead is None or row.ahead_low is None or row.ahead_high is None:
        return "–"
    low, high = 100 * row.ahead_low, 100 * row.ahead_high
    return f"{100 * row.ahead:+.1f} ({low:+.1f} to {high:+.1f})"


if __name__ == "__main__":
    raise SystemExit(main())
