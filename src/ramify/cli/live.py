"""A tree that redraws itself in the terminal while it grows."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.text import Text

from ramify.cli.output import Output
from ramify.cli.tree_text import draw_tree, twigs_of_tree
from ramify.search.tree import LogicalTree

REDRAW_S = 0.08  # seconds between pictures: drawing must not slow the search down


class LiveTree:
    """Give `on_step` to a search. Outside a terminal it draws nothing."""

    def __init__(self, out: Output, title: str, *, height: int) -> None:
        self._title = title
        self._height = height
        self._drawn_s = 0.0
        # the picture goes away at the end; the final tree is printed instead
        self._live = (
            Live(console=out.console, auto_refresh=False, transient=True) if out.is_live else None
        )

    def __enter__(self) -> LiveTree:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def on_step(self, tree: LogicalTree) -> None:
        """Redraw if the last picture is old enough."""
        now = time.perf_counter()
        if self._live is None or now - self._drawn_s < REDRAW_S:
            return
        self._drawn_s = now
        twigs = twigs_of_tree(tree)
        growing = sum(twig.state == "growing" for twig in twigs)
        pruned = sum(twig.state == "pruned" for twig in twigs)
        head = Text(
            f"{self._title}   {tree.generated_tokens} tokens, {len(twigs) - 1} nodes, "
            f"{growing} growing, {pruned} cut",
            style="cyan",
        )
        self._live.update(Group(head, draw_tree(twigs, height=self._height)), refresh=True)
