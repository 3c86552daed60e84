"""`ramify run`: search, watch the tree, check the answer, count the cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rich.text import Text

from ramify import LLM
from ramify.cli.cost import add_usage, usage_document, usage_line
from ramify.cli.export import check_export, export_all
from ramify.cli.flags import engine_settings
from ramify.cli.live import LiveTree
from ramify.cli.options import RunOptions
from ramify.cli.output import Output
from ramify.cli.problems import Job, jobs_of
from ramify.cli.setup import Search, search_of
from ramify.cli.tree_text import LEGEND, draw_tree, twigs_of_nodes
from ramify.core.errors import InputError, expected_got
from ramify.core.outputs import SearchResult
from ramify.zoo.tasks import Verdict, get_task


@dataclass(frozen=True, kw_only=True)
class Solved:
    """A job with what the search made of it."""

    job: Job
    algorithm: str
    result: SearchResult
    verdict: Verdict | None

    @property
    def answer(self) -> str:
        """The text of the best branch."""
        return self.result.best.text if self.result.best is not None else ""


def execute(options: RunOptions, out: Output) -> int:
    """Search on every job. Returns 0 whether or not the answers are right."""
    if options.height < 3:
        raise InputError(expected_got("height", "at least 3 lines", options.height))
    check_export(options.export)
    jobs = jobs_of(options)
    searches = [search_of(job, options) for job in jobs]  # bad flags before the model is loaded
    llm = LLM(**engine_settings(options.engine))
    searches = [_without_unknown_judge(search, llm, out) for search in searches]
    done = []
    for index, (job, search) in enumerate(zip(jobs, searches, strict=True)):
        title = f"[{index + 1}/{len(jobs)}] {_name(job)} by {search.algorithm}"
        with LiveTree(out, title, height=options.height) as live:
            result = _search(llm, search, options.seed, live)
        solved = Solved(
            job=job, algorithm=search.algorithm, result=result, verdict=_verdict(job, result)
        )
        done.append(solved)
        if index == 0 and not options.quiet:
            out.say(Text(LEGEND, style="dim"))
        _print(solved, title, options, out)
    export_all(llm, [solved.result for solved in done], options.export, out)
    total = add_usage([solved.result.usage for solved in done])
    if len(done) > 1 or _num_checked(done):
        out.say(Text(_summary(done), style="bold"))
        out.say(Text("in all: " + usage_line(total)))
    out.document(
        {
            "model": options.engine.model,
            "problems": [_document(solved) for solved in done],
            "checked": _num_checked(done),
            "solved": _num_solved(done),
            "usage": usage_document(total),
        }
    )
    return 0


def _search(llm: LLM, search: Search, seed: int, live: LiveTree) -> SearchResult:
    prompt = _begin_of_text(llm) if search.prompt is None else search.prompt
    result = llm.search(
        prompt, search.algorithm, seed=seed, on_step=live.on_step, **search.arguments
    )
    if search.algorithm in ("beam", "diverse_beam"):
        # a beam is made of appended tokens, among them the one that ends it
        for beam in result.outputs:
            beam.text = llm.engine.live.codec.decode(beam.token_ids, skip_special_tokens=True)
    if search.algorithm == "got":
        # an output begins with the line that asks for it
        for output in result.outputs:
            output.text = output.text.partition("\n")[2]
    return result


def _begin_of_text(llm: LLM) -> list[int]:
    """The token that all texts of the model begin with."""
    token = getattr(llm.engine.live.codec.tokenizer, "bos_token_id", None)
    if token is None:
        wanted = "a tokenizer with a begin-of-text token for algorithm got"
        raise InputError(expected_got("model", wanted, "none"))
    return [token]


def _without_unknown_judge(search: Search, llm: LLM, out: Output) -> Search:
    """Drop the judge where the model's tokenizer lacks its labels: it was never taught to judge."""
    judge = search.arguments.get("judge")
    if judge is None:
        return search
    try:
        for label in judge.labels:
            llm.engine.live.codec.label(label)
    except InputError as error:
        out.warn(f"ranking without a judge: {error}")
        return replace(search, arguments={**search.arguments, "judge": None})
    return search


def _verdict(job: Job, result: SearchResult) -> Verdict | None:
    if job.problem is None:
        return None
    text = result.best.text if result.best is not None else ""
    return get_task(job.problem.task).check(job.problem, text)


def _print(solved: Solved, title: str, options: RunOptions, out: Output) -> None:
    """The tree, the answer, the verdict and the cost of one job."""
    out.say(Text(title, style="bold cyan"))
    if not options.quiet:
        twigs = twigs_of_nodes(solved.result.tree, solved.result.output_nodes)
        out.say(draw_tree(twigs, height=options.height))
    out.say(Text("answer:  ", style="bold") + Text(_indented(solved.answer)))
    if solved.verdict is not None:
        style, word = ("green", "solved") if solved.verdict.solved else ("red", "not solved")
        out.say(
            Text("checker: ", style="bold") + Text(f"{word}: {solved.verdict.reason}", style=style)
        )
    out.say(Text("cost:    ", style="bold") + Text(usage_line(solved.result.usage)))
    out.say()


def _summary(done: list[Solved]) -> str:
    checked = _num_checked(done)
    if not checked:
        return f"{len(done)} searches done"
    return f"solved {_num_solved(done)} of {checked}"


def _num_checked(done: list[Solved]) -> int:
    return sum(solved.verdict is not None for solved in done)


def _num_solved(done: list[Solved]) -> int:
    return sum(solved.verdict is not None and solved.verdict.solved for solved in done)


def _name(job: Job) -> str:
    text = " ".join(job.prompt.split())
    return text if len(text) <= 60 else f"{text[:40]} … {text[-16:]}"


def _indented(text: str) -> str:
    return text.rstrip("\n").replace("\n", "\n         ") or "(none)"


def _document(solved: Solved) -> dict[str, Any]:
    result = solved.result
    return {
        "task": solved.job.problem.task if solved.job.problem is not None else None,
        "prompt": solved.job.prompt,
        "algorithm": solved.algorithm,
        "answer": solved.answer,
        "verdict": solved.verdict,
        "outputs": result.outputs,
        "tree": result.tree,
        "stats": result.stats,
        "usage": usage_document(result.usage),
    }
