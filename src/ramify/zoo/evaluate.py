"""How much more does a search solve than plain decoding, at the same number of generated tokens?

    python -m ramify.zoo.evaluate --task puzzle --count 200 --budget 120

Held-out problems: greedy, best-of-n (the checker selects), beam search, and searches over steps
with the checker as scorer and, on puzzles, the model as judge (`NAME_no_judge`: without). Best-of-n
and the searches get the same budget of generated tokens per problem and stop once the checker says
solved. What the judge reads is no generated token, so the table also shows all tokens computed
after the prompt.
Two splits of the held-out problems never share one: settings are tuned on `tune`, numbers are
reported on `report`.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import tyro

from ramify import LLM, BeamSearchParams, SamplingParams
from ramify.engine.request import Request
from ramify.search import BeamSearch, BestOfN, Budget, Controller, Sample, make_controller
from ramify.zoo.steps import SIZES, STEPS, Steps, checker_scorer, search_options
from ramify.zoo.tasks import Problem, get_task

TOGETHER = 40  # problems in the engine at once


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to evaluate."""

    task: str = field(default="puzzle", metadata={"help": "puzzle, sort, merge or documents"})
    count: int = field(default=200, metadata={"help": "held-out problems"})
    budget: int = field(default=120, metadata={"help": "generated tokens per problem"})
    split: Literal["tune", "report"] = field(
        default="report", metadata={"help": "which part of the held-out problems"}
    )
    max_winning: int | None = field(
        default=None, metadata={"help": "puzzles: at most this many first moves may win"}
    )
    methods: tuple[str, ...] = field(
        default=("greedy", "best_of_n", "beam", "tot_no_judge", "tot"),
        metadata={"help": f"rows of the table; also {', '.join(SIZES)}"},
    )
    model: str = field(default="ramify-tiny", metadata={"help": "bundled name or directory"})
    seed: int = field(default=0, metadata={"help": "of the problems and of all sampling"})
    k: tuple[int, ...] | None = field(default=None, metadata={"help": "branches, level by level"})
    width: int | None = field(default=None, metadata={"help": "thoughts expanded side by side"})
    temperature: float | None = field(default=None, metadata={"help": "of the tree's steps"})
    sample_temperature: float = field(default=0.7, metadata={"help": "of best-of-n"})
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
    generated_tokens: float  # sampled, or appended by the beam search
    computed_tokens: float  # after the prompt, questions to the judge included


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print a markdown table, write JSON if asked."""
    options = tyro.cli(Options, args=argv, config=(tyro.conf.DisallowNone,))
    problems = heldout_problems(options)
    llm = LLM(options.model)
    rows = []
    for method in options.methods:
        rows.append(evaluate(llm, problems, method, options))
        print(f"{method}: {rows[-1].solved} of {len(problems)} solved", file=sys.stderr, flush=True)
    print(markdown(rows))
    if options.output is not None:
        document = {"options": {**asdict(options), "output": None}, "rows": rows}
        options.output.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1))
    return 0


def heldout_problems(options: Options) -> list[Problem]:
    """Different held-out problems of one split, drawn with the seed."""
    family, rng = get_task(options.task), np.random.default_rng(options.seed)
    shape = {} if options.max_winning is None else {"max_winning": options.max_winning}
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


def evaluate(llm: LLM, problems: Sequence[Problem], method: str, options: Options) -> Row:
    """Solve all problems one way; requests of many problems share the engine's steps."""
    make, settings = _method(llm, method, options)
    solved, generated, computed = 0, 0, 0
    for begin in range(0, len(problems), TOGETHER):
        group = problems[begin : begin + TOGETHER]
        requests = [_submit(llm, make(problem), problem, options.seed) for problem in group]
        while not all(request.is_done for request in requests):
            llm.engine.step()
        for problem, request in zip(group, requests, strict=True):
            solved += get_task(problem.task).check(problem, _answer(llm, request)).solved
            new = request.usage.computed_tokens + request.usage.cached_tokens
            computed += new - request.usage.prompt_tokens
            grown = sum(len(node.token_ids) for node in request.tree if node.parent is not None)
            generated += grown
    low, high = wilson(solved, len(problems))
    return Row(
        task=options.task,
        method=method,
        settings=settings,
        problems=len(problems),
        solved=solved,
        low=low,
        high=high,
        generated_tokens=generated / len(problems),
        computed_tokens=computed / len(problems),
    )


def _submit(llm: LLM, controller: Controller, problem: Problem, seed: int) -> Request:
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


def _method(llm: LLM, method: str, options: Options) -> tuple[Callable[[Problem], Controller], str]:
    """A controller for each problem, and the settings in words."""
    limit = get_task(options.task).max_tokens
    budget = Budget(tokens=options.budget)
    if method == "greedy":
        greedy = SamplingParams(temperature=0.0, max_tokens=limit)
        return lambda problem: Sample(greedy), "temperature 0"
    if method == "best_of_n":
        # rounds of one sample: stops at the first solved one, and loses no token of the budget
        one = SamplingParams(temperature=options.sample_temperature, max_tokens=limit)
        words = f"temperature {one.temperature:g}, budget {options.budget}"
        return lambda problem: BestOfN(one, checker_scorer(problem), budget=budget), words
    if method == "beam":
        beam = BeamSearchParams(beam_width=4, max_tokens=limit)
        eos = llm.engine.limits.eos_token_ids
        return lambda problem: BeamSearch(beam, eos), "width 4"
    algorithm = method.removesuffix("_no_judge")
    steps = _steps(options, with_judge=algorithm == method)
    sizes = _sizes(algorithm, steps, options)

    def search(problem: Problem) -> Controller:
        arguments = search_options(algorithm, steps, problem) | sizes
        return make_controller(algorithm, budget=budget, **arguments)

    words = ", ".join(f"{name} {_listed(size)}" for name, size in sizes.items())
    return search, f"{words}, temperature {steps.temperature:g}, budget {options.budget}"


def _steps(options: Options, *, with_judge: bool) -> Steps:
    steps = STEPS[options.task]
    temperature = steps.temperature if options.temperature is None else options.temperature
    return replace(steps, temperature=temperature, judge=steps.judge if with_judge else None)


def _sizes(algorithm: str, steps: Steps, options: Options) -> dict[str, Any]:
    """How wide a search is, unless the options say otherwise."""
    if algorithm == "tot":
        return {"k": options.k or steps.k, "width": options.width or steps.width}
    said: dict[str, Any] = {"k": options.k[0] if options.k else None, "width": options.width}
    return {name: said.get(name) or size for name, size in SIZES[algorithm].items()}


def _listed(size: float | Sequence[int]) -> str:
    return f"{size:g}" if isinstance(size, (int, float)) else ",".join(map(str, size))


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return (centre - spread) / scale, (centre + spread) / scale


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    names = ("task", "method", "settings", "solved", "95 % interval")
    header = (*names, "generated tokens", "computed tokens")
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for row in rows:
        share = f"{100 * row.solved / row.problems:.1f} % ({row.solved} of {row.problems})"
        interval = f"{100 * row.low:.1f} to {100 * row.high:.1f} %"
        tokens = f"{row.generated_tokens:.0f} | {row.computed_tokens:.0f}"
        lines.append(
            f"| {row.task} | {row.method} | {row.settings} | {share} | {interval} | {tokens} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
