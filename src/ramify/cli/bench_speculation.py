"""`ramify bench speculation`: drafters on prompts, or replayed drafts on random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from ramify import LLM
from ramify.bench.attention.ceilings import Ceilings, measure_ceilings
from ramify.bench.attention.timers import timer_for
from ramify.bench.deft.workloads import recordings
from ramify.bench.dummy import is_dummy
from ramify.bench.generation import release
from ramify.bench.rows import append_rows
from ramify.bench.speculation.drafters import DrafterBench, bench_drafters
from ramify.bench.speculation.replay import ReplayBench, bench_replays
from ramify.bench.speculation.rows import DrafterRow, ReplayRow, VerifyRow
from ramify.cli.bench_model import bench_model
from ramify.cli.bench_settings import DTYPES, bench_device
from ramify.cli.bench_step import number
from ramify.cli.bench_tree_options import BenchSpeculationOptions
from ramify.cli.output import Output
from ramify.core.errors import InputError, expected_got
from ramify.core.speculative import SPECULATIVE_METHODS
from ramify.search.drafts import RecordedDrafts, load_recorded_drafts

NEW_TOKENS, REPLAYED_TOKENS = 64, 300


def execute(options: BenchSpeculationOptions, out: Output) -> int:
    """Measure and print. Returns 1 when a drafter changed float32 tokens or could not be made."""
    device = str(bench_device(options.engine.device))
    with bench_model(options.engine) as (model_name, settings):
        out.say(f"model: {model_name}")
        settings = {**settings, "device": device, "prefix_cache": True}
        common = {
            "model_name": model_name,
            "seed": options.seed,
            "commit": options.commit,
            "progress": lambda text: out.say(f"  {text}"),
            "done": lambda row: _keep(options, row),
        }
        if is_dummy(options.engine.model):
            return _replay(options, out, settings, common)
        return _drafters(options, out, settings, common)


def _keep(options: BenchSpeculationOptions, row: object) -> None:
    if options.output is not None:
        append_rows(options.output, [row])


# ── drafters on prompts ──────────────────────────────────────────────────────────────────────────
def _drafters(
    options: BenchSpeculationOptions, out: Output, settings: dict[str, Any], common: dict[str, Any]
) -> int:
    for name in options.drafters:
        if name not in SPECULATIVE_METHODS:
            allowed = f"any of {', '.join(SPECULATIVE_METHODS)}"
            raise InputError(expected_got("drafters", allowed, repr(name)))
    bench = DrafterBench(
        settings=settings,
        drafters=tuple(dict.fromkeys(options.drafters)),
        draft_model=options.draft_model or str(settings["model"]),
        prompts=options.prompts,
        together=options.together,
        new_tokens=NEW_TOKENS if options.new_tokens is None else options.new_tokens,
        draft_tokens=options.draft_tokens,
        is_adaptive=options.adaptive,
        **common,
    )
    rows = bench_drafters(bench)
    out.say(_drafter_table(rows))
    for row in rows:
        if row.reason:
            out.say(f"{row.drafter}: not run, {row.reason}")
    out.say(_measured_on(rows[0]))
    out.document({"rows": rows})
    changed = any(row.different and row.dtype == "float32" for row in rows)
    return 1 if changed or any(row.reason for row in rows) else 0


def _drafter_table(rows: Sequence[DrafterRow]) -> Table:
    names = ("prompts", "different", "steps", "tokens/step", "accepted", "wall s", "speed-up")
    table = _table(("drafter",), names)
    for row in rows:
        table.add_row(
            row.drafter,
            str(row.prompts),
            number(row.different, "d"),
            number(row.steps, "d"),
            number(row.tokens_per_step, ".2f"),
            number(row.acceptance, ".1%"),
            number(row.wall_s, ".2f"),
            "–" if row.speedup is None else f"{row.speedup:.2f}x",
        )
    return table


# ── replayed drafts ──────────────────────────────────────────────────────────────────────────────
def _replay(
    options: BenchSpeculationOptions, out: Output, settings: dict[str, Any], common: dict[str, Any]
) -> int:
    recorded = {} if options.workloads is None else _recordings(options.workloads)
    if not recorded:
        out.say("no --workloads: single steps only")
    ceilings = _ceilings(settings)
    with LLM(**settings) as llm:
        bench = ReplayBench(
            llm=llm,
            ceilings=ceilings,
            recordings=recorded,
            prompt_tokens=options.prompt_tokens,
            new_tokens=REPLAYED_TOKENS if options.new_tokens is None else options.new_tokens,
            draft_rows=options.draft_rows,
            contexts=options.contexts,
            steps=options.steps,
            **common,
        )
        rows = bench_replays(bench)
    replays = [row for row in rows if isinstance(row, ReplayRow)]
    if replays:
        out.say(_replay_table(replays))
    out.say(_step_table([row for row in rows if isinstance(row, VerifyRow)]))
    if rows:
        out.say(_measured_on(rows[0]))
    out.document({"rows": rows})
    return 0


def _ceilings(settings: dict[str, Any]) -> Ceilings:
    """What the device can do at best, in the dtype that the model will have."""
    device = torch.device(settings["device"])
    by_device = "bfloat16" if device.type == "cuda" else "float32"
    dtype = DTYPES.get(settings["dtype"], DTYPES[by_device])
    found = measure_ceilings(timer_for(device), device, dtype)
    release(device)
    return found


def _recordings(folder: Path) -> dict[str, RecordedDrafts]:
    """The recorded drafts of a folder by the name of their file, small structures first."""
    found = {path.stem: load_recorded_drafts(path) for path in recordings(folder)[1]}
    return dict(sorted(found.items(), key=lambda item: len(item[1].parent)))


def _replay_table(rows: Sequence[ReplayRow]) -> Table:
    names = ("rows", "recorded tokens/step", "tokens/step", "plain ms", "step ms", "speed-up")
    table = _table(("recording",), (*names, "different"))
    for row in rows:
        table.add_row(
            row.recording,
            str(row.rows_per_step),
            f"{row.recorded_per_step:.2f}",
            f"{row.tokens_per_step:.2f}",
            f"{row.plain_step_ms:.2f}",
            f"{row.verify_step_ms:.2f}",
            f"{row.speedup:.2f}x",
            str(row.num_different),
        )
    return table


def _step_table(rows: Sequence[VerifyRow]) -> Table:
    sizes = ("context", "rows", "plain ms", "as many rows ms", "attention floor ms")
    found = ("verifying ms", "over plain + floor", "over as many + floor")
    table = _table((), (*sizes, *found))
    for row in rows:
        table.add_row(
            str(row.context),
            str(row.rows_per_step),
            f"{row.plain_step_ms:.2f}",
            f"{row.rows_step_ms:.2f}",
            f"{row.attention_floor_ms:.3f}",
            f"{row.verify_step_ms:.2f}",
            f"{row.ratio:.2f}",
            f"{row.rows_ratio:.2f}",
        )
    return table


def _table(texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _measured_on(row: DrafterRow | ReplayRow | VerifyRow) -> str:
    stamp = row.environment
    commit = (stamp.commit or "unknown")[:12] + (" with changes" if stamp.is_dirty else "")
    machine = stamp.gpu if row.device.startswith("cuda") else stamp.cpu
    return f"{machine}, {row.dtype}, torch {stamp.libraries['torch']}, commit {commit}"
