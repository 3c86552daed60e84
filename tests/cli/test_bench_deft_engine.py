"""`ramify bench deft-engine`: rows to a file, their table into a page, bad flags in a line."""

from __future__ import annotations

import pytest

from ramify.cli.main import main

FLAGS = ("--device", "cpu", "--num-slots", "2000", "--prompt-tokens", "20", "--new-tokens", "4")


def test_rows_go_to_a_file_and_into_a_page(bytes_model, tmp_path, run_json, capsys):
    path, page = tmp_path / "rows.jsonl", tmp_path / "page.md"
    empty = "<!-- table: deft-engine -->\n<!-- end -->\n"
    page.write_text(empty)
    document = run_json(
        *("bench", "deft-engine", "--model", bytes_model, *FLAGS, "--only", "few_shot_b20"),
        *("--methods", "per_branch", "flatten", "--output", str(path), "--page", str(page)),
    )
    found = [(row["workload"], row["method"], row["num_steps"]) for row in document["rows"]]
    assert found == [("few_shot_b20", "per_branch", 3), ("few_shot_b20", "flatten", 3)]
    first = page.read_text()
    assert "| few_shot_b20, flatten | 3 | 0 % |" in first and first.endswith("<!-- end -->\n")
    # again from the rows alone
    page.write_text(empty)
    assert main(["bench", "deft-engine", "--rows", str(path), "--page", str(page)]) == 0
    assert page.read_text() == first
    assert "| few_shot_b20, per_branch |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags",
    [
        ("--trees", "0"),
        ("--new-tokens", "1"),
        ("--workloads", "nowhere"),
        ("--only", "few_shot_b9"),
        ("--methods", "radix"),
        ("--device", "tpu"),
        ("--tensor-parallel-size", "2"),
    ],
    ids=" ".join,
)
def test_bad_flags(flags, capsys):
    assert main(["bench", "deft-engine", *flags]) == 2
    assert "expected" in capsys.readouterr().err
