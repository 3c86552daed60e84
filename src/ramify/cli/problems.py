"""What `ramify run` is asked to solve: bundled problems, a file of them, or bare prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ramify.cli.options import RunOptions
from ramify.core.errors import InputError, expected_got
from ramify.zoo import PROBLEMS
from ramify.zoo.tasks import Problem, get_task, load_problems


@dataclass(frozen=True, kw_only=True)
class Job:
    """A prompt, and the problem it states where there is a checker for it."""

    prompt: str
    problem: Problem | None = None


def jobs_of(options: RunOptions) -> list[Job]:
    """The prompts of `--prompt`, `--task` or `--task-file`, exactly one of which is given.

    Raises InputError: none or several of them, a bad count, an unknown task, a broken file.
    """
    given = [options.prompt or None, options.task, options.task_file]
    if sum(one is not None for one in given) != 1:
        got = "none" if not any(given) else "several"
        raise InputError(expected_got("prompt, task, task_file", "exactly one of them", got))
    if options.count is not None and options.count < 1:
        raise InputError(expected_got("count", "at least 1", options.count))
    if options.skip < 0:
        raise InputError(expected_got("skip", "at least 0", options.skip))
    if options.prompt:
        return [Job(prompt=prompt) for prompt in options.prompt]
    if options.task is not None:
        last = options.skip + (options.count or 1)
        problems = bundled_problems(options.task, last, options.seed)[options.skip :]
    else:
        assert options.task_file is not None
        read_text(options.task_file, "task_file")  # a clear error before the parser's
        problems = load_problems(options.task_file)[options.skip :][: options.count]
        if not problems:
            wanted = f"a problem after the first {options.skip}" if options.skip else "a problem"
            raise InputError(expected_got(str(options.task_file), wanted, "none"))
    return [Job(prompt=problem.prompt, problem=problem) for problem in problems]


def bundled_problems(task: str, count: int, seed: int) -> list[Problem]:
    """The first held-out problems that come with the package, then newly drawn held-out ones."""
    family = get_task(task)
    problems = load_problems(PROBLEMS[task])[:count] if task in PROBLEMS else []
    rng = np.random.default_rng(seed)
    while len(problems) < count:
        problems.append(family.generate(rng, heldout=True))
    return problems


def read_text(path: Path, name: str) -> str:
    """The text of a file; InputError says what is wrong with it."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        got = f"{path}: {error.strerror}"
    except UnicodeDecodeError as error:
        got = f"{path}: {error.reason}"
    raise InputError(expected_got(name, "a readable text file", got))
