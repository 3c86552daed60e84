"""How long does a decode step take a user?  (`ramify bench decode --shape`)

Measured as rivals publish it: step = (time for N tokens - time for 1) / (N - 1) with every branch
emitting a token a step, temperature 1, end-of-text ignored, prefix cache off, after one warm-up
run. What the host does and the GPU runs in a step is looked at in a run of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ramify import LLM, SamplingParams
from ramify.bench.floor import StepFloor, shape_floor
from ramify.bench.generation import Generation, copy_rate, release
from ramify.bench.step_rows import StepRow
from ramify.bench.target import OURS, NotRun, Target
from ramify.bench.transformers_peer import TransformersPeer
from ramify.core.errors import RamifyError
from ramify.profile.shape import DecodeShape
from ramify.profile.step import profile_step

TRACED_STEPS = 16
"""Steps under the profiler, for launches and the GPU's idle time."""


@dataclass(frozen=True, kw_only=True)
class StepBench(Target):
    """Shapes, and the methods of attention to decode them by."""

    shapes: Sequence[DecodeShape]
    methods: Sequence[str] = ("auto",)
    new_tokens: int = 200


def bench_steps(bench: StepBench) -> list[StepRow]:
    """Measure every shape with every method and peer; rows of ours come first.

    Engines follow one another, as each fills the GPU. The profiler comes last, as it may slow down
    what runs after it, and therefore only where there is one method.

    Raises:
        ConfigError: the model cannot be loaded. InputError: a shape is longer than the context.
    """
    for shape in bench.shapes:
        bench.check_context(shape.prompt_tokens)
    rate = copy_rate(bench.device)
    bench.progress(f"copy rate {rate / 1e9:.1f} GB/s, bytes read and written")
    peers = _time_transformers(bench) if bench.peers else []
    rows: list[StepRow] = []
    for method in bench.methods:
        release(bench.device)
        rows += _run_method(bench, method, rate)
    for row in _peer_rows(bench, peers, rows[: len(bench.shapes)]):
        bench.done(row)
        rows.append(row)
    return rows


# ── our engine ───────────────────────────────────────────────────────────────────────────────────
def _run_method(bench: StepBench, method: str, rate: float) -> list[StepRow]:
    llm = LLM(**{**bench.settings, "method": method})
    bench.progress(f"{method}: {llm.startup}")
    every = [_time(bench, llm, shape) for shape in bench.shapes]
    rows = []
    for shape, timed in zip(bench.shapes, every, strict=True):
        details = {} if isinstance(timed, str) else _look_into(bench, llm, shape)
        row = StepRow(
            **_basics(bench, shape, shape_floor(llm, shape, bench.new_tokens, rate), timed),
            **details,  # type: ignore[arg-type]
            provider=OURS,
            dtype=llm.config.dtype,
            method=method,
            backend=llm.engine.executor.attention.backend,
            first_run_s=None if isinstance(timed, str) else timed.first_run_s,
            startup_weights_s=llm.startup.weights_s,
            startup_pool_s=llm.startup.pool_s,
            startup_kernels_s=llm.startup.kernels_s,
        )
        bench.done(row)
        rows.append(row)
    return rows


def _time(bench: StepBench, llm: LLM, shape: DecodeShape) -> Generation | str:
    """The generation of a shape, or why it did not run."""
    prompts = shape.prompts(llm.engine.live.codec.vocab_size, bench.seed)

    def generate(new_tokens: int) -> None:
        params = SamplingParams(
            n=shape.branches, max_tokens=new_tokens, ignore_eos=True, seed=bench.seed
        )
        for output in llm.generate(prompts, params):
            if output.error is not None:
                raise NotRun(output.error)

    timed = bench.time(generate)
    bench.report(OURS, shape, timed)
    return timed


def _look_into(bench: StepBench, llm: LLM, shape: DecodeShape) -> dict[str, float | None]:
    """Host time, launches and idle time of a step; nothing on a CPU, which is host and device."""
    if bench.device.type != "cuda" or len(bench.methods) > 1:
        return {}
    with tempfile.TemporaryDirectory(prefix="ramify-trace-") as directory:
        try:
            found = profile_step(
                llm,
                shape,
                path=Path(directory) / "trace.json.gz",
                num_timed=bench.new_tokens,
                num_traced=TRACED_STEPS,
                seed=bench.seed,
            )
        except RamifyError as error:  # a profiler that sees nothing, a pool without room for more
            bench.progress(f"no host time, launches and idle share: {error}")
            return {}
    return {
        "host_us": found.host_us,
        "launches": found.launches,
        "idle_share": found.idle_share,
    }


# ── the peer ─────────────────────────────────────────────────────────────────────────────────────
def _time_transformers(bench: StepBench) -> list[Generation | str]:
    """The same shapes by transformers' generate, where memory allows."""
    peer = TransformersPeer(bench.settings)
    every = []
    for shape in bench.shapes:
        prompts = shape.prompts(peer.vocab_size, bench.seed)
        timed = peer.time(
            partial(peer.sample, prompts, shape.branches),
            num_rows=shape.num_rows,
            prompt_tokens=shape.prompt_tokens,
            new_tokens=bench.new_tokens,
            repeats=bench.repeats,
        )
        bench.report(peer.name, shape, timed)
        every.append(timed)
    return every


def _peer_rows(
    bench: StepBench, peers: Sequence[Generation | str], ours: Sequence[StepRow]
) -> list[StepRow]:
    """Rows with the floors of ours: how a peer keeps its KV is its own affair."""
    rows = []
    for timed, row, shape in zip(peers, ours, bench.shapes, strict=False):
        floor = StepFloor(
            weight_bytes=row.floor_weight_bytes,
            kv_bytes=row.floor_kv_bytes,
            copy_bytes_per_s=row.copy_gb_per_s * 1e9,
        )
        basics = _basics(bench, shape, floor, timed)
        rows.append(StepRow(**basics, provider=TransformersPeer.name, dtype=row.dtype))
    return rows


def _basics(
    bench: StepBench, shape: DecodeShape, floor: StepFloor, timed: Generation | str
) -> dict[str, Any]:
    """What every provider's row of a shape says."""
    times = bench.row_fields(
        timed,
        prompt_tokens=shape.prompt_tokens,
        num_rows=shape.num_rows,
        floor_ms=floor.ms,
    )
    return {
        **times,
        "branches": shape.branches,
        "trees": shape.trees,
        "floor_weight_bytes": floor.weight_bytes,
        "floor_kv_bytes": floor.kv_bytes,
        "copy_gb_per_s": floor.copy_bytes_per_s / 1e9,
    }
