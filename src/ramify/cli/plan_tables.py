"""Plans as people read them and as documents: their reports, their items, and what was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from ramify.attention.plan import AttentionPlan, PlanReport
from ramify.attention.plan.predict import Prediction
from ramify.bench.attention.achieved import Achieved

PIECES_SHOWN = 4  # of an item


@dataclass(frozen=True, kw_only=True)
class ShownPlan:
    """A plan with what is known of it; None where there are no workers, or nothing was run."""

    plan: AttentionPlan
    report: PlanReport
    on_workers: Prediction | None
    achieved: Achieved | None

    def document(self, *, with_items: bool) -> dict[str, Any]:
        """The report, what was measured beside it, and each item if asked for."""
        document = {**asdict(self.report), "achieved": None}
        if self.achieved is not None:
            bytes_ratio, time_ratio = self.ratios(self.achieved)
            ratios = {"kv_bytes_ratio": bytes_ratio, "us_ratio": time_ratio}
            document["achieved"] = {**asdict(self.achieved), **ratios}
        if with_items:
            document["items"] = [self.item(index) for index in range(self.plan.num_items)]
        return document

    def ratios(self, achieved: Achieved) -> tuple[float, float]:
        """Achieved over predicted: KV bytes and time. Nothing over nothing is as predicted."""
        predicted = self.report.kv_bytes_read
        bytes_ratio = achieved.kv_bytes_read / predicted if predicted else 1.0
        return bytes_ratio, achieved.p50_us / self.report.predicted_us

    def item(self, index: int) -> dict[str, Any]:
        """An item as plain data; rows are counted in depth-first order."""
        plan = self.plan
        pieces = range(int(plan.item_indptr[index]), int(plan.item_indptr[index + 1]))
        return {
            "item": index,
            "workers": None if self.on_workers is None else self.on_workers.workers_of(index),
            "row_begin": int(plan.item_lo[index]),
            "row_end": int(plan.item_hi[index]),
            "tokens": int(plan.piece_len[pieces.start : pieces.stop].sum()),
            "pieces": [_piece(plan, piece) for piece in pieces],
        }


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


def summary_table(shown: list[ShownPlan]) -> Table:
    """A line per plan."""
    names = ["items", "tiles", "unique", "re-read", "partials", "merges", "sharing"]
    has_workers = any(one.on_workers is not None for one in shown)
    table = _table("method", *names, *(["busiest"] if has_workers else []), "predicted")
    for one in shown:
        report = one.report
        busiest = [] if report.busiest_over_mean is None else [f"{report.busiest_over_mean:.2f}x"]
        table.add_row(
            report.method,
            str(report.num_items),
            str(report.num_tiles),
            _size(report.kv_bytes_unique),
            _size(report.kv_bytes_reread),
            _size(report.partial_bytes),
            str(report.num_merges),
            f"{report.sharing_factor:.2f}x",
            *busiest,
            f"{report.predicted_us:.1f} us",
        )
    return table


def achieved_table(shown: list[ShownPlan]) -> Table:
    """Predicted beside achieved, for the plans that were run."""
    table = _table("method", "KV planned", "read", "ratio", "us predicted", "p50", "p20", "p80")
    table.add_column("ratio", justify="right")
    for one in shown:
        achieved = one.achieved
        if achieved is not None:
            bytes_ratio, time_ratio = one.ratios(achieved)
            times = (one.report.predicted_us, achieved.p50_us, achieved.p20_us, achieved.p80_us)
            table.add_row(
                one.report.method,
                _size(one.report.kv_bytes_read),
                _size(achieved.kv_bytes_read),
                f"{bytes_ratio:.2f}",
                *(f"{us:.1f}" for us in times),
                f"{time_ratio:.2f}",
            )
    return table


def item_table(shown: ShownPlan, max_items: int) -> Table:
    """The first items with their workers, rows and KV pieces."""
    plan = shown.plan
    count = min(plan.num_items, max_items)
    has_workers = shown.on_workers is not None
    table = _table("item", *(["worker"] if has_workers else []), "rows", "tokens")
    table.add_column("KV pieces node[begin:end]@slot")
    table.title = f"{plan.method} ({plan.why}): items 0 to {count - 1} of {plan.num_items}"
    table.title_justify = "left"
    for index in range(count):
        item = shown.item(index)
        pieces = [
            f"{p['node']}[{p['begin']}:{p['end']}]@{p['slot']}{' causal' if p['causal'] else ''}"
            for p in item["pieces"]
        ]
        table.add_row(
            str(index),
            *([_first(item["workers"], 2)] if has_workers else []),
            f"[{item['row_begin']}:{item['row_end']}]",
            str(item["tokens"]),
            _first(pieces, PIECES_SHOWN),
        )
    return table


def _first(values: list[Any], count: int) -> str:
    more = f" and {len(values) - count} more" if len(values) > count else ""
    return " ".join(map(str, values[:count])) + more


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for index, name in enumerate(names):
        table.add_column(name, justify="right" if index else "left")
    return table


def _size(num_bytes: int) -> str:
    """Bytes with a binary unit."""
    value = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
