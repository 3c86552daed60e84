"""Pages as a browser shows them, from a file and without a network, and what is on them."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from ramify.profile import characterise
from ramify.profile.attribute import Label, Work
from ramify.profile.measured import Measured
from ramify.profile.operators import kinds
from ramify.profile.page import page, save_page
from ramify.profile.report import CacheRates, load_report, save_report
from ramify.profile.sequence import sweep
from ramify.profile.summarise import failed, summarise
from ramify.profile.svg import COLOURS, colour
from ramify.profile.svg_log import power_of_ten
from ramify.profile.trace import Span
from ramify.profile.window import Window

SMALL = {"prompt_tokens": 256, "new_tokens": 16}
CHROMIUM = next(
    (
        path
        for path in map(Path, ("/usr/bin/chromium", "/usr/bin/chromium-browser"))
        if path.exists()
    ),
    None,
)


def measured(run, wall_s=60e-6):
    label = Label(kinds.LINEAR, "aten.mm", "prefill.model.layers", ((256, 4096), (4096, 4096)))
    copy = Label(kinds.ELEMENTWISE, "aten.add", "prefill.model", ((256, 4096),))
    passes = [[Work(label, Span("gemm", 0, 30), 0), Work(copy, Span("add", 31, 20), 1)]] * 2
    windows = [Window((0.0, 55.0), [found]) for found in passes]
    fields = summarise([wall_s, wall_s + 1e-6], windows, {}, on_gpu=True)
    return Measured(device="cuda", attention="flash", run=run, **fields)


@pytest.fixture(scope="module")
def report():
    def at(value):
        return characterise("llama_7b", sizes={**SMALL, "prompt_tokens": value})

    found = at(256)
    prefill, decode = found.components
    runs = (
        measured("eager"),
        measured("graphs"),
        measured("compiled", 90e-6),
        failed("cuda", "naive", "eager", ValueError("x")),
    )
    rates = CacheRates(kind=kinds.LINEAR, launches=3, l1_hit_rate=0.4, l2_hit_rate=0.7)
    return replace(
        found,
        components=(replace(prefill, measured=runs), decode),
        sweep=sweep(at, "prompt_tokens", [128, 256, 512]),
        cache=(rates,),
    )


def test_a_saved_report_draws_the_same_page(report, tmp_path):
    save_report(report, tmp_path / "report.json")
    again = load_report(tmp_path / "report.json")
    assert again == report and page(again) == page(report)


def test_what_was_measured_is_on_it(report):
    text = page(report)
    for words in ("prefill, flash attention, graphs", "Longest modules", "prefill.model.layers"):
        assert words in text
    assert "Cache hit rates" in text and "40.0 %" in text
    assert text.count("The GPU waits for the host.") == 1
    assert "0.91 times as long under the profiler, and of that 92.7 % told apart" in text
    assert "60.50 ms by the clock (60.00" not in text and "0.06 ms by the clock" in text


def test_colours_and_numbers():
    assert len(COLOURS) == len(kinds.KINDS) == len({colour(k, kinds.KINDS) for k in kinds.KINDS})
    told = [power_of_ten(power) for power in (-1, 0, 2, 3, 13, 17)]
    assert told == ["0.1", "1", "100", "1 k", "10 T", "100 P"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium at /usr/bin/chromium")
def test_a_browser_draws_its_figures_from_a_file(report, tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    save_page(report, tmp_path / "page.html")
    asked, problems = [], []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(viewport={"width": 1000, "height": 800})
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: problems.append(message.text))
        tab.goto((tmp_path / "page.html").as_uri())
        figures = [figure.bounding_box() for figure in tab.query_selector_all("svg")]
        wide = tab.evaluate("document.documentElement.scrollWidth")
        shot = image.open(BytesIO(tab.screenshot(full_page=True))).convert("RGB")
        browser.close()
    assert asked == [(tmp_path / "page.html").as_uri()] and not problems
    assert len(figures) >= 6 and all(box["width"] > 600 and box["height"] > 30 for box in figures)
    assert wide <= 1000  # nothing sticks out
    counts = {rgb: count for count, rgb in shot.getcolors(1 << 24)}
    for kind in (kinds.LINEAR, kinds.PREFILL, kinds.ELEMENTWISE):
        fill = colour(kind, kinds.KINDS).removeprefix("#")
        assert counts.get(tuple(bytes.fromhex(fill)), 0) > 500, kind
