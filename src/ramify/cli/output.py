"""Where a command's words go: people's text to stdout, warnings to stderr, or one JSON document."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import msgspec
from rich.console import Console, RenderableType
from rich.text import Text

PLAIN_WIDTH = 100  # columns where stdout is not a terminal


def _console() -> Console:
    """stdout as it is now: tests and pipes replace it."""
    is_terminal = sys.stdout.isatty()
    return Console(
        file=sys.stdout, highlight=False, emoji=False, width=None if is_terminal else PLAIN_WIDTH
    )


@dataclass(frozen=True)
class Output:
    """The sink of one command. With `is_json`, `say` is silent and `document` speaks."""

    is_json: bool
    console: Console = field(default_factory=_console)

    @property
    def is_live(self) -> bool:
        """Whether a picture may be redrawn in place."""
        return self.console.is_terminal and not self.is_json

    def say(self, text: RenderableType = "", *, end: str = "\n") -> None:
        """Text for people. Lines longer than the terminal are left to it; tables fit themselves."""
        if not self.is_json:
            is_text = isinstance(text, (str, Text))
            self.console.print(text, end=end, markup=False, soft_wrap=is_text)

    def document(self, content: Any) -> None:
        """The command's result; dataclasses become objects, infinities and NaN null."""
        if self.is_json:
            print(msgspec.json.format(msgspec.json.encode(content), indent=1).decode())

    @staticmethod
    def warn(text: str) -> None:
        """One line for people on stderr, in either mode."""
        print(f"ramify: {text}", file=sys.stderr)
