"""`ramify profile model`, `suite`, `compare` and `render`."""

from __future__ import annotations

import pytest

from ramify.cli.main import main

SMALL = ["--size", "prompt_tokens=64", "new_tokens=16"]


def test_tables_files_and_a_page_drawn_again(capsys, tmp_path):
    report, page = tmp_path / "report.json", tmp_path / "page.html"
    argv = ["profile", "model", "llama_7b", *SMALL, "--sweep", "batch", "1", "2"]
    assert main([*argv, "--trace-lengths", "--output", str(report), "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    for word in ("prefill", "decode", "linear", "sequence length", "covered: 100.0 %", "trace: "):
        assert word in printed
    again = tmp_path / "again.html"
    assert main(["profile", "render", str(report), "--html", str(again)]) == 0
    assert again.read_text() == page.read_text()


def test_documents(run_json):
    document = run_json("profile", "model", "llama_7b", *SMALL)
    assert document["covered_share"] == 1 and not document["unknown_ops"]
    assert [part["name"] for part in document["report"]["components"]] == ["prefill", "decode"]
    rows = run_json("profile", "compare", "llama_7b", "llama_7b")["rows"]
    assert rows[-1]["kind"] == "all" and rows[-1]["flops"][0] == rows[-1]["flops"][1]


def test_the_suite_in_one_table_and_as_files(run_json, tmp_path):
    document = run_json("profile", "suite", "--preset", "llama_7b", "--output", str(tmp_path))
    (row,) = document["rows"]
    assert row["name"] == "llama_7b" and 0.5 < row["linear"] < 1 and not document["failed"]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"llama_7b.json", "llama_7b.html", "suite.json"}


def test_what_fails_is_named_and_the_rest_of_the_suite_stays(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    assert main(["profile", "suite", "--preset", "sd15", "llama_7b"]) == 1
    captured = capsys.readouterr()
    assert "ramify[profile]" in captured.err and "llama_7b" in captured.out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["model", "lama_7b"], "did you mean llama_7b"),
        (["model", "llama_7b", "--size", "prompt_tokens"], "name=number"),
        (["model", "llama_7b", "--sweep", "batch"], "a size and numbers"),
        (["compare", "llama_7b", "none.json"], "a report written as JSON"),
        (["suite", "--preset", "llama_7b", "dalle"], "preset"),
    ],
)
def test_bad_input(fails, argv, message):
    assert message in fails("profile", *argv)


def test_measured_on_this_machine(capsys, bytes_model):
    argv = ["profile", "model", bytes_model, *SMALL, "--measure", "both", "--repeats", "2"]
    assert main([*argv, "--hardware", "cpu", "--component", "prefill"]) == 0
    printed = capsys.readouterr().out
    assert "measured: prefill, flash" in printed and "measured: prefill, naive" in printed
    assert "by the clock" in printed and "decode" not in printed
    assert "longest operators" in printed and "aten.mm" in printed
    assert "longest modules" in printed and "prefill.model" in printed


def test_counters_of_nsight_compute_are_refused_without_kernels(capsys, fails, tmp_path):
    report, counters = str(tmp_path / "report.json"), tmp_path / "ncu.csv"
    assert main(["profile", "model", "llama_7b", *SMALL, "--output", report]) == 0
    page = ["--html", str(tmp_path / "page.html"), "--ncu", str(counters)]
    counters.write_text("==ERROR== ERR_NVGPUCTRPERM")
    capsys.readouterr()
    assert "ncu --csv" in fails("profile", "render", report, *page)
