"""A search tree as lines of text: what grew, what was cut, how it was scored; capped in height."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from ramify.core.outputs import TreeNode
from ramify.export import ExportedNode
from ramify.search.tree import LogicalTree

STYLES = {"growing": "yellow", "idle": "", "closed": "", "pruned": "dim", "best": "bold green"}
MARKS = {"growing": "…", "pruned": "✗", "best": "★"}
LEGEND = "★ on the way to the answer   ✗ cut: a copy, a broken rule, a low rank   number: score"
TEXT_WIDTH = 56  # columns of a node's text


@dataclass(frozen=True, kw_only=True)
class Twig:
    """What is drawn of one node."""

    id: int
    parent: int | None
    text: str
    state: str  # a NodeState value, or "best" on the path to the best output
    num_tokens: int
    score: float | None


@dataclass(kw_only=True)
class _Layout:
    """Which nodes are drawn, and what hangs below each."""

    shown: set[int]
    children: dict[int, list[Twig]] = field(default_factory=dict)
    below: dict[int, int] = field(default_factory=dict)  # nodes of each subtree, its root included


def twigs_of_tree(tree: LogicalTree) -> list[Twig]:
    """The nodes of a live tree."""
    return [
        Twig(
            id=node.id,
            parent=node.parent,
            text=node.text,
            state=node.state.value,
            num_tokens=len(node.token_ids),
            score=node.score,
        )
        for node in tree
    ]


def twigs_of_nodes(
    nodes: Sequence[TreeNode] | Sequence[ExportedNode], outputs: Sequence[int]
) -> list[Twig]:
    """The nodes of a tree that is over; its results end at `outputs`, best first."""
    parent = {node.id: node.parent for node in nodes}
    best: set[int] = set()
    at = outputs[0] if outputs else None
    while at is not None and parent[at] is not None:
        best.add(at)
        at = parent[at]
    return [
        Twig(
            id=node.id,
            parent=node.parent,
            text=node.text,
            state="best" if node.id in best else node.state,
            num_tokens=len(node.token_ids),
            score=node.score,
        )
        for node in nodes
    ]


def draw_tree(twigs: list[Twig], *, height: int) -> Text:
    """At most `height` lines; the best path, growing and high nodes are kept first."""
    layout = _lay_out(twigs, max(height, 2))
    root = twigs[0]
    lines = [Text(f"{_one_line(root.text)}  ({root.num_tokens} tokens)", style="bold")]
    lines += _branches(root, layout, "")
    if len(lines) > height:
        lines = [*lines[: height - 1], Text(f"… {len(lines) - height + 1} more lines", style="dim")]
    return Text("\n").join(lines)


def _lay_out(twigs: list[Twig], height: int) -> _Layout:
    """Choose nodes by rank, each with its ancestors, while the lines suffice."""
    layout = _Layout(shown={twigs[0].id})
    parent = {twig.id: twig.parent for twig in twigs}
    for twig in twigs[1:]:
        assert twig.parent is not None, "only the root has no parent"
        layout.children.setdefault(twig.parent, []).append(twig)
    layout.below = dict.fromkeys(parent, 1)
    for twig in reversed(twigs[1:]):
        # parents come before their children in the list
        layout.below[parent[twig.id] or 0] += layout.below[twig.id]
    rest = sorted(twigs[1:], key=_rank)
    # a parent with children left out takes a line to say so
    for twig in rest:
        wanted, at = set(), twig.id
        while at not in layout.shown:
            wanted.add(at)
            at = parent[at] or 0
        if len(layout.shown | wanted) + _num_summaries(layout, wanted) > height:
            break
        layout.shown |= wanted
    return layout


def _num_summaries(layout: _Layout, wanted: set[int]) -> int:
    shown = layout.shown | wanted
    return sum(
        any(child.id not in shown for child in layout.children.get(node, ())) for node in shown
    )


def _rank(twig: Twig) -> tuple[int, float, int]:
    """Low first: best path, growing, complete by falling score, pruned."""
    order = {"best": 0, "growing": 1, "pruned": 3}.get(twig.state, 2)
    return order, -(twig.score if twig.score is not None else 0.0), twig.id


def _branches(node: Twig, layout: _Layout, indent: str) -> Iterator[Text]:
    """The lines below a node."""
    children = layout.children.get(node.id, [])
    shown = [child for child in children if child.id in layout.shown]
    hidden = [child for child in children if child.id not in layout.shown]
    for child in shown:
        is_last = child is shown[-1] and not hidden
        yield _line(child, indent + ("└─ " if is_last else "├─ "))
        yield from _branches(child, layout, indent + ("   " if is_last else "│  "))
    if hidden:
        count = sum(layout.below[child.id] for child in hidden)
        pruned = sum(child.state == "pruned" for child in hidden)
        note = f"{count} more" + (f", {pruned} of them cut here" if pruned else "")
        yield Text(f"{indent}└─ … {note}", style="dim")


def _line(twig: Twig, guide: str) -> Text:
    mark = MARKS.get(twig.state, " ")
    score = "" if twig.score is None else f"{twig.score:.3f}"
    text = _one_line(twig.text) or "(no text)"
    room = max(TEXT_WIDTH - len(guide), 16)
    line = Text(guide, style="dim")
    line.append(f"{mark} {text:<{room}}", style=STYLES.get(twig.state, ""))
    line.append(f"  {score:>6}  {twig.num_tokens:>3} tok", style="dim")
    return line


def _one_line(text: str) -> str:
    """Shown on one line, shortened in the middle."""
    text = text.strip("\n").replace("\n", " ⏎ ")
    text = "".join(char if char.isprintable() else "·" for char in text)
    return text if len(text) <= TEXT_WIDTH else f"{text[:36]} … {text[-16:]}"
