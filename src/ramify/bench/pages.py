"""Tables of a page that are made from rows: between two comments, replaced as a whole.

<!-- table: name -->
...
<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ramify.core.errors import InputError, expected_got

_MARKED = re.compile(r"(?s)(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)")


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def fill_tables(page: Path, tables: Mapping[str, str]) -> None:
    """Replace the marked tables of a page that `tables` has; others stay as they are.

    Raises InputError when the page cannot be read or has none of them.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(expected_got(str(page), "a readable page", error.strerror)) from error
    marked = {found["name"] for found in _MARKED.finditer(text)}
    if not marked & set(tables):
        wanted = f"a table marked as one of {', '.join(tables)}"
        raise InputError(expected_got(str(page), wanted, ", ".join(sorted(marked)) or "none"))

    def fresh(found: re.Match[str]) -> str:
        table = tables.get(found["name"])
        return found[0] if table is None else found[1] + table + found[3]

    page.write_text(_MARKED.sub(fresh, text), encoding="utf-8")
