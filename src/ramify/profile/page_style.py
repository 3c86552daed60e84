"""What sections of a page are made of: its style, tables, cards, legends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ramify.profile.operators.kinds import KINDS
from ramify.profile.svg import colour, legend

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:940px;margin:2em auto;padding:0 1.2em;
color:#1f2933;background:#f5f7fa}
h1{font-size:1.7em;margin:.4em 0}h2{font-size:1.12em;margin:0 0 .6em}
section{background:#fff;border:1px solid #e4e7eb;border-radius:8px;padding:1em 1.2em;margin:1em 0}
svg{display:block;max-width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:#323f4b}
table{border-collapse:collapse;margin:.6em 0;font-variant-numeric:tabular-nums}
td,th{padding:3px 10px;text-align:right;border-bottom:1px solid #e4e7eb}
th{font-weight:600;color:#52606d}
td:first-child,th:first-child{text-align:left}
.legend span{margin-right:1.1em;white-space:nowrap;font-size:.9em}
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.35em;border-radius:2px}
.cards{display:flex;flex-wrap:wrap;gap:.8em;margin:1em 0}
.cards div{background:#fff;border:1px solid #e4e7eb;border-radius:8px;padding:.5em .9em}
.cards b{display:block;font-size:1.15em}.cards span{color:#52606d;font-size:.85em}
details{margin:.6em 0;overflow-x:auto}summary{cursor:pointer;color:#1f5fa8}
td.name{max-width:460px;overflow-wrap:anywhere}
footer{color:#52606d;font-size:.85em;margin:1.5em 0}.warn{color:#c0392b}
"""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f'<tr><td class="name">{escape(first)}</td>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def cards(facts: Mapping[str, str]) -> str:
    """A few numbers, large, each with what it is."""
    items = (
        f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>"
        for name, value in facts.items()
    )
    return f'<div class="cards">{"".join(items)}</div>'


def details(summary: str, content: str) -> str:
    """Something long, closed until it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def bar_legend(kinds: Iterable[str]) -> str:
    """The kinds of a plot with their colours."""
    shown = list(kinds)
    return legend(shown, [colour(kind, KINDS) for kind in shown])


def share(value: float) -> str:
    """A part of 1 as people read it."""
    return f"{100 * value:.1f} %"
