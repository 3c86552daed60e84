"""`ramify plan`: what attention would do for a tree, method by method, and what it then does."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch

from ramify.attention import METHODS, AttentionPlan, TreeAttention, build_plan, explain
from ramify.attention.plan.build import BLOCK_TOKENS
from ramify.attention.plan.predict import predict
from ramify.bench.attention.achieved import measure_plan
from ramify.bench.attention.timers import Timer, timer_for
from ramify.bench.env import environment
from ramify.cli.bench_settings import bench_device
from ramify.cli.options import PlanOptions
from ramify.cli.output import Output
from ramify.cli.plan_tables import ShownPlan, achieved_table, item_table, summary_table
from ramify.cli.shapes import forest_of_shape, recorded_shape
from ramify.core.errors import InputError, expected_got
from ramify.core.forest import Forest

DTYPES = {1: torch.bfloat16, 2: torch.bfloat16, 4: torch.float32, 8: torch.float64}
"""What an element of so many bytes is by default; K and V of one byte are fp8."""
NAMES = {str(t).removeprefix("torch."): t for t in (torch.float16, *DTYPES.values())}


def execute(options: PlanOptions, out: Output) -> int:
    """Build the plans, run them if asked to, print. Raises InputError for bad options."""
    _check(options)
    device = bench_device(options.device)
    forest, title = _forest(options)
    auto = _open(options, device, "auto")
    chosen = auto.plan(forest)
    timer = timer_for(device) if _is_measured(options, device) else None
    methods = METHODS if options.method == "all" else (options.method,)
    shown = [_show(_open(options, device, m), forest, options, timer) for m in methods]
    out.say(_headline(title, forest, auto))
    out.say(summary_table(shown))
    out.say(f"auto chooses {chosen.method}: {chosen.why}")
    if timer is not None:
        out.say(
            f"\npredicted and achieved, {timer.kind} timing, ratios are achieved over predicted"
        )
        out.say(achieved_table(shown))
    if options.explain:
        for one in shown:
            out.say(item_table(one, options.max_items))
    out.document(
        {
            "tree": title,
            "heads": asdict(auto.heads),
            "device": str(device),
            "backend": auto.backend,
            "auto": {"method": chosen.method, "why": chosen.why},
            "plans": [one.document(with_items=options.explain) for one in shown],
            "environment": None if timer is None else environment(),
        }
    )
    return 0


def _check(options: PlanOptions) -> None:
    for name in ("q_heads", "kv_heads", "head_dim", "repeats"):
        if getattr(options, name) < 1:
            raise InputError(expected_got(name, "at least 1", getattr(options, name)))
    if options.q_heads % options.kv_heads:
        raise InputError(
            expected_got("q_heads", f"a multiple of kv_heads {options.kv_heads}", options.q_heads)
        )
    if options.measure and options.no_measure:
        raise InputError(expected_got("measure, no_measure", "one of the two", "both"))
    if options.measure and options.block_tokens != BLOCK_TOKENS:
        wanted = f"{BLOCK_TOKENS}, which is what runs, with measure"
        raise InputError(expected_got("block_tokens", wanted, options.block_tokens))


def _is_measured(options: PlanOptions, device: torch.device) -> bool:
    """Asked for, or part of an explanation where it takes no time to speak of."""
    is_default = options.explain and device.type == "cuda" and options.block_tokens == BLOCK_TOKENS
    return options.measure or (is_default and not options.no_measure)


def _open(options: PlanOptions, device: torch.device, method: str) -> TreeAttention:
    dtype, kv_dtype = _dtypes(options)
    return TreeAttention(
        options.q_heads,
        options.kv_heads,
        options.head_dim,
        dtype,
        device,
        method,
        options.backend,
        kv_dtype=kv_dtype,
    )


def _dtypes(options: PlanOptions) -> tuple[torch.dtype, torch.dtype | None]:
    """Of q, and of K and V where that is another."""
    if options.itemsize not in (None, *DTYPES):
        allowed = ", ".join(map(str, DTYPES))
        raise InputError(expected_got("itemsize", f"one of {allowed}", options.itemsize))
    if options.dtype not in ("auto", *NAMES):
        raise InputError(expected_got("dtype", f"auto, {', '.join(NAMES)}", repr(options.dtype)))
    dtype = DTYPES[options.itemsize or 2] if options.dtype == "auto" else NAMES[options.dtype]
    if options.itemsize == 1:
        return dtype, torch.float8_e4m3fn
    if options.itemsize not in (None, dtype.itemsize):
        wanted = f"1 or {dtype.itemsize} with dtype {options.dtype}"
        raise InputError(expected_got("itemsize", wanted, options.itemsize))
    return dtype, None


def _forest(options: PlanOptions) -> tuple[Forest, str]:
    """The forest asked for and its name."""
    if options.workload is None:
        shape = options.shape or "few_shot"
        return forest_of_shape(shape), shape
    if options.shape is not None:
        raise InputError(expected_got("shape, workload", "one of the two", "both"))
    state = recorded_shape(options.workload, options.tree, options.iteration)
    return state.forest(room=0), state.name


def _show(
    op: TreeAttention, forest: Forest, options: PlanOptions, timer: Timer | None
) -> ShownPlan:
    plan = _plan(op, forest, options)
    bandwidth = options.bandwidth_gbs * 1e9
    tuning = op.tuning
    return ShownPlan(
        plan=plan,
        report=explain(plan, op.heads, tuning=tuning, bandwidth_bytes_per_s=bandwidth),
        on_workers=None if tuning is None else predict(plan, op.heads, tuning),
        achieved=None
        if timer is None
        else measure_plan(op, forest, timer, repeats=options.repeats),
    )


def _plan(op: TreeAttention, forest: Forest, options: PlanOptions) -> AttentionPlan:
    """The plan that runs; with blocks of another length, one that is only shown."""
    plan = op.plan(forest)
    if options.block_tokens == BLOCK_TOKENS:
        return plan
    other = build_plan(
        forest,
        plan.method,
        block_tokens=options.block_tokens,
        heads=op.heads,
        tuning=op.tuning,
    )
    return replace(other, why=plan.why)


def _headline(title: str, forest: Forest, op: TreeAttention) -> str:
    heads = op.heads
    layout = f"{heads.num_q_heads}/{heads.num_kv_heads} heads of {heads.head_dim}"
    workers = "" if op.tuning is None else f", {op.tuning.num_workers} workers a KV head"
    return (
        f"{title}: {forest.num_nodes} nodes, {forest.num_rows} rows, "
        f"{forest.unique_tokens} tokens ({forest.path_tokens} counted per row); "
        f"{layout}, {heads.itemsize} bytes an element; one layer; "
        f"backend {op.backend} on {op.device}{workers}"
    )
