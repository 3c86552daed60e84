"""The page in a browser without a network: it opens, a node unfolds, and texts stay texts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ramify.core.outputs import TreeNode, Usage
from ramify.export import ExportedTree, make_tree, read_tree, save_tree, tree_page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; the test is skipped where it or its driver is absent."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH")
    with sync_api.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu"]
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Open the page of a tree from a file; any error or request of the page fails the test."""
    complaints: list[str] = []
    pages = []

    def open_page(tree: ExportedTree, **options: Any) -> Any:
        save_tree(tree, tmp_path / "tree.html")
        page = browser.new_page(viewport={"width": 1200, "height": 700}, **options)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: complaints.extend(_foreign(request.url)))
        page.goto((tmp_path / "tree.html").as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []


def _foreign(url: str) -> list[str]:
    return [] if url.startswith("file:") else [url]


def row(page: Any, node: int) -> Any:
    return page.locator(f"#node-{node}")


def test_a_click_opens_a_node(show: Any, tree: ExportedTree, tmp_path: Path) -> None:
    page = show(tree)
    assert not row(page, 3).count() and row(page, 1).get_attribute("aria-expanded") == "false"
    before = page.screenshot()
    row(page, 1).locator(".toggle").click()
    assert row(page, 3).is_visible() and row(page, 1).get_attribute("aria-expanded") == "true"
    assert page.screenshot(path=tmp_path / "open.png") != before
    assert (tmp_path / "open.png").read_bytes()[:4] == b"\x89PNG"
    row(page, 1).locator(".toggle").click()
    assert not row(page, 3).count()


def test_the_best_path_is_open_and_marked(show: Any, tree: ExportedTree) -> None:
    page = show(tree)
    shown = [int(one["id"][5:]) for one in _rows(page)]
    assert shown == [0, 1, 2, 4, 5, 6]
    assert [int(one["id"][5:]) for one in _rows(page) if "best" in one["class"]] == [2, 4]
    assert row(page, 4).locator(".mark").inner_text() == "★ best"
    assert row(page, 5).locator(".mark").inner_text() == "○ 2"
    assert row(page, 2).locator(".score").inner_text() == "0.750"
    assert row(page, 2).locator(".kv").inner_text() == "×2"
    assert row(page, 6).locator(".kv").inner_text() == "in #2"


def _rows(page: Any) -> list[dict[str, str]]:
    script = "rows => rows.map(row => ({id: row.id, class: row.className}))"
    found: list[dict[str, str]] = page.locator("#rows .row").evaluate_all(script)
    return found


def test_tokens_say_their_probability(show: Any, tree: ExportedTree) -> None:
    page = show(tree)
    row(page, 2).click()
    known = page.locator("#panel .tokens span.known")
    assert known.all_inner_texts() == [" right", " side"]
    tips = [known.nth(place).get_attribute("title") for place in range(2)]
    assert tips == [
        "token 20\nlogprob -0.1000\nprobability 0.905",
        "token 21\nlogprob -2.5000\nprobability 0.082",
    ]
    colours = known.evaluate_all("spans => spans.map(s => getComputedStyle(s).backgroundColor)")
    assert colours[0] != colours[1]


def test_what_a_user_wrote_stays_text(show: Any, tree: ExportedTree) -> None:
    page = show(tree)
    assert page.title() != "taken" and not page.locator("b:text('bold'), i:text('model')").count()
    assert "</script>" in row(page, 4).locator(".text").inner_text()
    assert "<i>model</i>" in page.locator("h1").inner_text()
    assert tree.nodes[4].text.split()[0] in page.locator("#panel").inner_text()


def test_keys_search_and_what_was_cut(show: Any, tree: ExportedTree) -> None:
    page = show(tree)
    page.locator("#collapse").click()
    assert len(_rows(page)) == 1
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert row(page, 3).is_visible()
    page.locator("#alive").check()
    assert not row(page, 3).is_visible() and row(page, 1).is_visible()
    page.locator("#alive").uncheck()
    page.locator("#collapse").click()
    page.fill("#search", "A LEAF")
    page.keyboard.press("Enter")
    assert row(page, 5).is_visible() and page.locator("#panel h2").inner_text().startswith("Node 5")
    page.locator("#expand").click()
    assert len(_rows(page)) == 8


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(show: Any, tree: ExportedTree, scheme: str) -> None:
    page = show(tree, color_scheme=scheme)
    script = "body => [getComputedStyle(body).color, getComputedStyle(body).backgroundColor]"
    ink, paper = (_luminance(one) for one in page.locator("body").evaluate(script))
    assert (ink < paper) == (scheme == "light")
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7  # WCAG 2, level AAA


def _luminance(colour: str) -> float:
    """Relative luminance of rgb(...), by WCAG 2."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("shape", ["wide", "deep"])
def test_five_thousand_nodes(show: Any, shape: str) -> None:
    parents = [None, *(0 if shape == "wide" else place for place in range(4999))]
    nodes = [
        TreeNode(
            id=place,
            parent=parent,
            token_ids=[place],
            text=f"node {place}",
            state="idle",
            cumulative_logprob=0.0,
        )
        for place, parent in enumerate(parents)
    ]
    made = make_tree(
        nodes,
        [[node.text] for node in nodes],
        model="m",
        outputs=[],
        usage=Usage(),
        stats={},
        solved=False,
        kv_bytes_per_token=1,
    )
    page = show(made)
    page.locator("#expand").click()
    assert page.locator("#rows .row").count() == 5000
    page.fill("#search", "node 4999")
    page.keyboard.press("Enter")
    assert row(page, 4999).locator(".text").is_visible()
    page.locator("#collapse").click()
    assert page.locator("#rows .row").count() == 1


def test_the_page_holds_the_document_and_no_address(tree: ExportedTree) -> None:
    """Without a browser: a parser finds one JSON script, which is the tree, and nothing to load."""
    found: dict[str, str] = {}

    class Scripts(HTMLParser):
        kind: str | None = None

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.kind = dict(attrs).get("id") if tag == "script" else None
            assert not {"src", "href"} & dict(attrs).keys()

        def handle_data(self, data: str) -> None:
            if self.kind is not None:
                found[self.kind] = found.get(self.kind, "") + data

    page = tree_page(tree)
    Scripts().feed(page)
    assert read_tree(found["document"]) == tree
    assert "http" not in re.sub(r'http-equiv="', "", page)
