"""Marked tables of a page: replaced as a whole, and nothing else is."""

from __future__ import annotations

import pytest

from ramify.bench.pages import fill_tables, markdown_table
from ramify.core.errors import InputError

PAGE = """# Page
<!-- table: first -->
old
<!-- end -->
between
<!-- table: second -->
<!-- end -->
"""


def test_tables_are_replaced_where_they_are_marked(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    table = markdown_table(["a", "b"], [["x", "1"]])
    fill_tables(page, {"first": table, "third": "nowhere"})
    assert page.read_text() == PAGE.replace("old\n", "| a | b |\n| --- | ---: |\n| x | 1 |\n")
    fill_tables(page, {"first": "old\n"})
    assert page.read_text() == PAGE


def test_pages_without_the_tables(tmp_path):
    page = tmp_path / "page.md"
    with pytest.raises(InputError, match="readable page"):
        fill_tables(page, {"first": ""})
    page.write_text(PAGE)
    with pytest.raises(InputError, match="marked as one of other, got first, second"):
        fill_tables(page, {"other": ""})
