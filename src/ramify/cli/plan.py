"""`ramify plan`: what attention would do for a tree, method by method, from the plan itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from ramify.attention.plan import METHODS, AttentionPlan, HeadShape, PlanReport, build_plan, explain
from ramify.cli.options import PlanOptions
from ramify.cli.output import Output
from ramify.cli.shapes import forest_of_shape, recorded_shape
from ramify.core.errors import InputError, expected_got
from ramify.core.forest import Forest


def execute(options: PlanOptions, out: Output) -> int:
    """Build the plans, print them. Raises InputError for a bad shape, workload or head layout."""
    heads = _head_shape(options)
    forest, title = _forest(options)
    methods = METHODS if options.method == "all" else (options.method,)
    plans = [build_plan(forest, method, block_tokens=options.block_tokens) for method in methods]
    bandwidth = options.bandwidth_gbs * 1e9
    reports = [explain(plan, heads, bandwidth_bytes_per_s=bandwidth) for plan in plans]
    chosen = build_plan(forest, "auto", block_tokens=options.block_tokens)
    out.say(_headline(title, forest, heads))
    out.say(_summary(reports))
    out.say(f"auto chooses {chosen.method}: {chosen.why}")
    if options.explain:
        for plan in plans:
            out.say(_item_table(plan, options.max_items))
    out.document(
        {
            "tree": title,
            "heads": asdict(heads),
            "auto": {"method": chosen.method, "why": chosen.why},
            "plans": [
                _document(plan, report, with_items=options.explain)
                for plan, report in zip(plans, reports, strict=True)
            ],
        }
    )
    return 0


def _head_shape(options: PlanOptions) -> HeadShape:
    for name in ("q_heads", "kv_heads", "head_dim", "itemsize"):
        if getattr(options, name) < 1:
            raise InputError(expected_got(name, "at least 1", getattr(options, name)))
    if options.q_heads % options.kv_heads:
        raise InputError(
            expected_got("q_heads", f"a multiple of kv_heads {options.kv_heads}", options.q_heads)
        )
    return HeadShape(
        num_q_heads=options.q_heads,
        num_kv_heads=options.kv_heads,
        head_dim=options.head_dim,
        itemsize=options.itemsize,
    )


def _forest(options: PlanOptions) -> tuple[Forest, str]:
    """The forest asked for and its name."""
    if options.workload is None:
        shape = options.shape or "few_shot"
        return forest_of_shape(shape), shape
    if options.shape is not None:
        raise InputError(expected_got("shape, workload", "one of the two", "both"))
    state = recorded_shape(options.workload, options.tree, options.iteration)
    return state.forest(room=0), state.name


def _headline(title: str, forest: Forest, heads: HeadShape) -> str:
    layout = f"{heads.num_q_heads}/{heads.num_kv_heads} heads of {heads.head_dim}"
    return (
        f"{title}: {forest.num_nodes} nodes, {forest.num_rows} rows, "
        f"{forest.unique_tokens} tokens ({forest.path_tokens} counted per row); "
        f"{layout}, {heads.itemsize} bytes an element; one layer"
    )


def _summary(reports: list[PlanReport]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("method")
    for name in ("items", "tiles", "unique", "re-read", "partials", "sharing", "predicted"):
        table.add_column(name, justify="right")
    for report in reports:
        table.add_row(
            report.method,
            str(report.num_items),
            str(report.num_tiles),
            _size(report.kv_bytes_unique),
            _size(report.kv_bytes_reread),
            _size(report.partial_bytes),
            f"{report.sharing_factor:.2f}x",
            f"{report.predicted_us:.1f} us",
        )
    return table


def _item_table(plan: AttentionPlan, max_items: int) -> Table:
    """The first items with their rows and KV pieces."""
    shown = min(plan.num_items, max_items)
    title = f"{plan.method} ({plan.why}): items 0 to {shown - 1} of {plan.num_items}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("item", "rows", "tokens", "KV pieces node[begin:end]@slot"):
        table.add_column(name, justify="left" if name.startswith("KV") else "right")
    for item in _items(plan)[:shown]:
        pieces = [
            f"{p['node']}[{p['begin']}:{p['end']}]@{p['slot']}{' causal' if p['causal'] else ''}"
            for p in item["pieces"]
        ]
        more = f" and {len(pieces) - 4} more" if len(pieces) > 4 else ""
        rows = f"[{item['row_begin']}:{item['row_end']}]"
        listed = " ".join(pieces[:4]) + more
        table.add_row(str(item["item"]), rows, str(item["tokens"]), listed)
    return table


def _items(plan: AttentionPlan) -> list[dict[str, Any]]:
    """Every item as plain data; rows are counted in depth-first order."""
    items = []
    for item in range(plan.num_items):
        pieces = range(int(plan.item_indptr[item]), int(plan.item_indptr[item + 1]))
        items.append(
            {
                "item": item,
                "row_begin": int(plan.item_lo[item]),
                "row_end": int(plan.item_hi[item]),
                "tokens": int(plan.piece_len[pieces.start : pieces.stop].sum()),
                "pieces": [_piece(plan, piece) for piece in pieces],
            }
        )
    return items


def _piece(plan: AttentionPlan, piece: int) -> dict[str, Any]:
    begin = int(plan.piece_offset[piece])
    return {
        "node": int(plan.piece_node[piece]),
        "begin": begin,
        "end": begin + int(plan.piece_len[piece]),
        "slot": int(plan.piece_slot[piece]),
        "row_begin": int(plan.piece_lo[piece]),
        "row_end": int(plan.piece_hi[piece]),
        "causal": bool(plan.piece_causal[piece]),
    }


def _document(plan: AttentionPlan, report: PlanReport, *, with_items: bool) -> dict[str, Any]:
    document = asdict(report)
    if with_items:
        document["items"] = _items(plan)
    return document


def _size(num_bytes: int) -> str:
    """Bytes with a binary unit."""
    value = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
