"""The synthetic task families that `ramify-tiny` learns: generators and exact checkers.

`TASKS` maps a name to its family. Problem files are JSON lines, of
which only task and prompt are required:
`{"task": "puzzle", "prompt": ..., "answer": ..., "meta": {...}}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from ramify.core.errors import InputError, expected_got
from ramify.zoo.tasks.base import Problem, Task, Verdict
from ramify.zoo.tasks.documents import Documents
from ramify.zoo.tasks.lists import Merge, Sort
from ramify.zoo.tasks.puzzle import JUDGE_SUFFIX, NO, YES, Puzzle

__all__ = [
    "JUDGE_SUFFIX",
    "NO",
    "TASKS",
    "YES",
    "Problem",
    "Task",
    "Verdict",
    "dump_problems",
    "get_task",
    "load_problems",
]

TASKS: dict[str, Task] = {task.name: task for task in (Puzzle(), Sort(), Merge(), Documents())}


def get_task(name: str) -> Task:
    """The family of that name; InputError lists the names there are."""
    if name not in TASKS:
        raise InputError(expected_got("task", f"one of {', '.join(TASKS)}", repr(name)))
    return TASKS[name]


def load_problems(path: str | Path) -> list[Problem]:
    """Read a problem file; InputError names the line that is wrong."""
    problems = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            problems.append(_problem_of(line, f"{path}, line {number}"))
    return problems


def dump_problems(problems: Iterable[Problem], path: str | Path) -> None:
    """Write a problem file."""
    lines = [
        json.dumps({"task": p.task, "prompt": p.prompt, "answer": p.answer, "meta": dict(p.meta)})
        for p in problems
    ]
    Path(path).write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _problem_of(line: str, where: str) -> Problem:
    """One line of a problem file."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(expected_got(where, "a JSON object", f"{line[:60]!r} ({error})")) from None
    if not isinstance(row, dict):
        raise InputError(expected_got(where, "a JSON object", type(row).__name__))
    for name in ("task", "prompt"):
        if not isinstance(row.get(name), str):
            raise InputError(expected_got(f"{where}: {name}", "a string", repr(row.get(name))))
    get_task(row["task"])
    return Problem(
        task=row["task"],
        prompt=row["prompt"],
        answer=str(row.get("answer", "")),
        meta=dict(row.get("meta") or {}),
    )
