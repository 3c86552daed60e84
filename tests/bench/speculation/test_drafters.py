"""Drafters on prompts: a right one is fast, broken tokens are found, a missing one is named."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from ramify import LLM, SamplingParams
from ramify.bench.rows import read_rows_of
from ramify.bench.speculation import drafters
from ramify.bench.speculation.drafters import DrafterBench, bench_drafters, task_prompts
from ramify.bench.speculation.rows import DrafterRow
from ramify.bench.speculation.successors import SuccessorDrafter
from ramify.cli.main import main
from ramify.core.params import SamplingParams as Params
from ramify.core.speculative import SPECULATIVE_METHODS
from ramify.engine.speculation.draft import DraftContext
from ramify.testing.models import save_byte_tokenizer, save_tiny_llama


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes")
    save_tiny_llama(path, vocab_size=256, max_positions=4096)
    save_byte_tokenizer(path)
    return str(path)


def drafter_bench(model, **more):
    settings = {"model": model, "device": "cpu", "num_slots": 8000}
    sizes = {"prompts": 5, "together": 2, "new_tokens": 12, "draft_tokens": 4}
    return DrafterBench(settings=settings, model_name="bytes", draft_model=model, **sizes, **more)


def test_every_drafter_keeps_greedy_tokens(model):
    rows = bench_drafters(drafter_bench(model, drafters=["ngram", "draft_model", "custom"]))
    plain, ngram, own, custom = rows
    assert [row.drafter for row in rows] == ["plain", "ngram", "draft_model", "custom"]
    assert all(row.different == 0 and row.generated_tokens == 60 for row in rows)
    assert plain.verified_steps == 0 and plain.tokens_per_step == plain.speedup == 1.0
    # the model knows itself, but its drafts of four tokens are not all one line
    assert own.tokens_per_step > 2 and own.steps < 0.7 * plain.steps
    assert ngram.verified_steps > 0 and custom.verified_steps > 0


def test_other_tokens_are_counted(model, monkeypatch):
    def other(llm, bench, prompts):
        found = llm.generate(list(prompts), SamplingParams(temperature=0.0, max_tokens=3))
        if bench.config(drafter="ngram")["method"] and llm.config.speculative_config is not None:
            found[1].outputs[0].token_ids[-1] += 1
        return found

    monkeypatch.setattr(drafters, "_generate", other)
    rows = bench_drafters(drafter_bench(model, drafters=["ngram"]))
    assert [row.different for row in rows] == [0, 1]


def test_a_drafter_that_cannot_be_made_says_why(model, tmp_path):
    bench = replace(drafter_bench(model, drafters=["draft_model"]), draft_model=str(tmp_path))
    _, row = bench_drafters(bench)
    assert row.wall_s is None and row.different is None and "config.json" in row.reason


def test_successors():
    drafter = SuccessorDrafter()
    drafter.learn([1, 2, 3, 1, 2, 4, 2, 3])
    context = DraftContext("b", np.array([9, 1]), Params(), 0, 8, 3)
    (tree,) = drafter.propose([context])
    assert tree.tokens == (2, 3, 1) and tree.parents == (-1, 0, 1)
    assert drafter.propose([context._replace(token_ids=np.array([4, 9]))])[0].tokens == ()


def test_prompts_are_of_every_task_and_readable():
    prompts = task_prompts(8, 0)
    assert len(set(prompts)) == 8 and prompts == task_prompts(8, 0)
    llm = LLM("ramify-tiny", device="cpu", num_slots=64)
    assert max(len(llm.engine.live.codec.encode_prompt(prompt)) for prompt in prompts) < 4000


def test_command(model, tmp_path, capsys):
    output = tmp_path / "rows.jsonl"
    argv = ["bench", "speculation", "--model", model, "--device", "cpu", "--num-slots", "8000"]
    argv += ["--prompts", "2", "--new-tokens", "4", "--drafters", "ngram", "suffix"]
    assert main([*argv, "--output", str(output), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["rows"]
    assert all(set(row) == {f.name for f in fields(DrafterRow)} for row in printed)
    read = read_rows_of(output, DrafterRow, "speculation")
    assert [row.drafter for row in read] == ["plain", "ngram", "suffix"]
    assert main([*argv, "--drafters", "oracle"]) == 2
    assert f"any of {', '.join(SPECULATIVE_METHODS)}" in capsys.readouterr().err
