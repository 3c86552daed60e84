"""A picture of microseconds against the floor, a group of marks per shape."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ramify.bench.attention.rows import AttentionRow
from ramify.core.errors import BackendUnavailable


def plot_rows(rows: Sequence[AttentionRow], path: Path) -> None:
    """Write a picture; its type is that of the file's name.

    Raises BackendUnavailable where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailable("plot", "matplotlib is not installed (extra: bench)") from error
    labels = list(dict.fromkeys(_label(row) for row in rows))
    place = {label: index for index, label in enumerate(labels)}
    figure = Figure(figsize=(10, 1.6 + 0.26 * len(labels)), layout="constrained")
    axes = figure.subplots()
    floors = {place[_label(row)]: row.floor_us for row in rows}
    axes.barh(list(floors), list(floors.values()), height=0.7, color="0.85", label="floor")
    for index, name in enumerate(dict.fromkeys(row.provider for row in rows)):
        own = [row for row in rows if row.provider == name and row.p50_us is not None]
        if own:
            marker = "D" if name.startswith("ramify:") else "o"
            times = [row.p50_us for row in own]
            heights = [place[_label(row)] for row in own]
            axes.plot(times, heights, marker, label=name, color=f"C{index % 10}", alpha=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("microseconds, one layer (median)")
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    figure.legend(loc="outside upper center", ncols=5, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _label(row: AttentionRow) -> str:
    return f"{row.shape}  {row.heads}"
