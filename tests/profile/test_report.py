"""A report survives its JSON, and its page comes from the JSON alone."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import msgspec
import pytest

from ramify.core.errors import InputError
from ramify.profile.compare import compare
from ramify.profile.model import characterise
from ramify.profile.page import page
from ramify.profile.report import load_report, save_report, schema
from ramify.profile.sequence import sweep


@pytest.fixture(scope="module")
def report():
    def at(tokens):
        return characterise("llama_7b", sizes={"prompt_tokens": tokens, "new_tokens": 16})

    return replace(at(64), sweep=sweep(at, "prompt_tokens", [64, 128]))


def test_json_and_page_without_loss(report, tmp_path):
    save_report(report, tmp_path / "deep" / "report.json")
    again = load_report(tmp_path / "deep" / "report.json")
    assert again == report and page(again) == page(report)
    fields = schema()["$defs"]["Report"]["properties"]
    assert set(msgspec.json.decode(msgspec.json.encode(report))) == set(fields)
    (tmp_path / "bad.json").write_text("{}")
    for name in ("bad.json", "none.json"):
        with pytest.raises(InputError, match="a report written as JSON"):
            load_report(tmp_path / name)


class Checker(HTMLParser):
    """Counts tags and notices what a page would fetch or leaves open."""

    def __init__(self):
        super().__init__()
        self.counts, self.open, self.fetched = {}, [], []

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.fetched += [value for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(report):
    checker = Checker()
    checker.feed(page(report))
    assert not checker.open and not checker.fetched and "script" not in checker.counts
    assert checker.counts["svg"] == 6  # bars, roofline, lengths, histogram, sweep twice
    assert checker.counts["circle"] > 3 and checker.counts["rect"] > 30


def test_names_cannot_break_the_page(report):
    text = page(replace(report, title="<script>alert(1)</script>"))
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_comparing_a_report_with_itself_and_with_another(report):
    other = characterise("llama_7b", sizes={"prompt_tokens": 64, "new_tokens": 16}, batch=4)
    for row in compare(report, report):
        assert row.flops[0] == row.flops[1] and row.time_share[0] == row.time_share[1]
    (*kinds, whole) = compare(report, other)
    # not quite 4 times: the angles of RoPE are made once for all sequences
    assert whole.flops[1] == pytest.approx(4 * whole.flops[0], rel=1e-6)
    assert whole.flash_s[1] < 4 * whole.flash_s[0]
    assert sum(row.time_share[1] for row in kinds) == pytest.approx(1)
