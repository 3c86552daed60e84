"""Handles against resending: the same trees, counted tokens, and peers that lose no steps."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from ramify import LLM
from ramify.bench.dummy import write_dummy_model
from ramify.bench.dummy_tokenizer import write_dummy_tokenizer
from ramify.bench.rows import read_rows_of
from ramify.bench.search.prompts import text_prompt
from ramify.bench.search.rows import HANDLES, RESEND, RESEND_N, SearchRow
from ramify.bench.search.run import FORMS, SearchBench, bench_searches, run_once
from ramify.bench.search.searches import SEARCHES, SearchShape
from ramify.cli.main import main
from ramify.testing.models import save_tiny_llama

SHAPE = SearchShape(width=8, depth=3, step_tokens=5, prompt_tokens=40)
VOCAB = 64


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(path, vocab_size=VOCAB)
    write_dummy_tokenizer(path, VOCAB)
    return LLM(str(path), device="cpu", num_slots=1200, max_rows=64)


def search_bench(llm, **more):
    return SearchBench(llm=llm, model_name="tiny", shape=SHAPE, repeats=2, **more)


@pytest.mark.parametrize("algorithm", SEARCHES)
def test_forms_grow_the_same_tree(llm, algorithm):
    bench = search_bench(llm, algorithms=[algorithm])
    runs = {form: run_once(bench, algorithm, form, seed=3) for form in FORMS}
    trees = [run.tree for run in runs.values()]
    assert trees[0] == trees[1] == trees[2]
    assert len(trees[0]) == SHAPE.width * SHAPE.depth
    assert {len(tokens) for tokens in trees[0].values()} == {SHAPE.step_tokens}
    # a place's parents are in the tree
    assert all(place[:-1] in trees[0] for place in trees[0] if len(place) > 1)
    assert runs[HANDLES].requests == 1 and runs[RESEND].requests == len(trees[0])
    expanded = {place[:-1] for place in trees[0]}
    assert runs[RESEND_N].requests <= len(trees[0])
    # the prompt, and the last token of every step that was expanded
    assert runs[HANDLES].prefill_tokens == SHAPE.prompt_tokens + len(expanded) - 1
    llm.engine.cache.check_integrity()


def test_resent_prompts_are_admitted_together_although_few_rows_are_left(llm):
    # 8 prompts of 40 tokens and more, 64 rows: cached ones must not be counted as rows
    bench = search_bench(llm, algorithms=["rebase"])
    by_handles, resent = (run_once(bench, "rebase", form, seed=5) for form in (HANDLES, RESEND))
    assert by_handles.steps == SHAPE.depth * SHAPE.step_tokens
    # one step a level more: equal prompts wait for the first of them
    assert resent.steps <= by_handles.steps + SHAPE.depth


def test_rows(llm):
    rows = bench_searches(search_bench(llm, algorithms=["mcts", "rebase"]))
    assert [(row.algorithm, row.form) for row in rows] == [
        (algorithm, form) for algorithm in ("mcts", "rebase") for form in FORMS
    ]
    for row in rows:
        assert row.num_nodes == 2 * SHAPE.width * SHAPE.depth and row.num_nodes_apart == 0
        assert (row.saving is None) == (row.form == HANDLES)
        assert row.saving is None or row.saving_low <= row.saving <= row.saving_high


def test_prompts_read_back(llm):
    codec = llm.engine.live.codec
    text = text_prompt(llm, 40, 1)
    assert len(codec.encode_prompt(text)) == 40 and text != text_prompt(llm, 40, 2)
    tiny = LLM("ramify-tiny", device="cpu", num_slots=64)
    assert len(tiny.engine.live.codec.encode_prompt(text_prompt(tiny, 40, 1))) == 40


def test_command(tmp_path, capsys):
    output = tmp_path / "rows.jsonl"
    argv = ["bench", "search", "--device", "cpu", "--algorithms", "rebase", "--width", "4"]
    argv += ["--depth", "2", "--step-tokens", "3", "--prompt-tokens", "30", "--repeats", "2"]
    assert main([*argv, "--output", str(output), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["rows"]
    assert all(set(row) == {f.name for f in fields(SearchRow)} for row in printed)
    assert [row.form for row in read_rows_of(output, SearchRow, "search")] == list(FORMS)
    assert main(argv) == 0
    assert "trees: the same in every form" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (("--width", "6"), "width"),
        (("--depth", "0"), "depth"),
        (("--algorithms", "astar"), "algorithms"),
        (("--repeats", "0"), "algorithms, repeats"),
        (("--prompt-tokens", "5000"), "path"),
    ],
)
def test_bad_flags(flags, field, capsys):
    assert main(["bench", "search", "--device", "cpu", "--num-slots", "64", *flags]) == 2
    assert f"{field}: expected" in capsys.readouterr().err


def test_a_dummy_model_gets_its_tokenizer(tmp_path):
    write_dummy_model(tmp_path)
    write_dummy_tokenizer(tmp_path, 4096)
    llm = LLM(str(tmp_path), device="cpu", load_format="dummy", num_slots=16)
    codec = llm.engine.live.codec
    tokens = [0, 10, 1, 4095, 7, 70]
    assert codec.encode_prompt(codec.decode(tokens)) == tokens
