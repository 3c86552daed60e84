"""Replayed drafts: accepted as recorded, tokens of plain decoding, rows of the right sizes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ramify import LLM
from ramify.bench.attention.ceilings import Ceilings
from ramify.bench.rows import read_rows_of
from ramify.bench.speculation.replay import ReplayBench, bench_replays
from ramify.bench.speculation.replay_drafter import ReplayDrafter
from ramify.bench.speculation.rows import ReplayRow, VerifyRow
from ramify.cli.main import main
from ramify.core.errors import InputError
from ramify.core.params import SamplingParams
from ramify.engine.speculation.draft import DraftContext
from ramify.engine.speculation.verify import accepted
from ramify.search.drafts import RecordedDrafts
from ramify.testing.models import save_tiny_llama

# a fork at the tip, and the longer line is not the first one
PARENT = (-1, 0, 0, 2, 3, 2)
CEILINGS = Ceilings(copy_bytes_per_s=1e6, gemm_flop_per_s=1e30)


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(path)
    return LLM(str(path), device="cpu", num_slots=1500)


def test_drafts_are_right_as_often_as_recorded():
    path = [5, 6, 7, 8, 9, 10, 11, 12]
    drafter = ReplayDrafter(PARENT, [1, 4, 2], path, vocab_size=20)
    context = DraftContext("b", np.array(path[:3]), SamplingParams(), 0, 99, 99)
    for wanted in (1, 4, 2, 1):
        (tree,) = drafter.propose([context])
        assert len(tree.tokens) == 5 and tree.checked(20, 99, 99) == tree
        # what is drawn behind each draft token is right where the path to it was
        drawn = [path[3], *(path[3 + depth] for depth in tree.shape.depth)]
        assert 1 + len(accepted(tree, drawn)) == wanted
    near = context._replace(token_ids=np.array(path[:6]))
    assert drafter.propose([near])[0].tokens == ()
    with pytest.raises(InputError, match="at most 4 tokens"):
        ReplayDrafter(PARENT, [5], path, vocab_size=20)


def test_rows(llm):
    recorded = RecordedDrafts(parent=PARENT, accepted=((1, 4, 2, 3),))
    bench = ReplayBench(
        llm=llm,
        model_name="tiny",
        ceilings=CEILINGS,
        recordings={"fork": recorded},
        prompt_tokens=20,
        new_tokens=60,
        draft_rows=(16, 40),
        contexts=(30, 50),
        steps=4,
    )
    replay, *steps = bench_replays(bench)
    assert isinstance(replay, ReplayRow) and replay.num_different == 0
    assert replay.rows_per_step == 6 and replay.recorded_per_step == 2.5
    assert replay.tokens_per_step == pytest.approx(2.5, abs=0.3)
    assert replay.speedup == pytest.approx(
        replay.tokens_per_step * replay.plain_step_ms / replay.verify_step_ms
    )
    sizes = [(row.context, row.rows_per_step) for row in steps]
    assert sizes == [(30, 16), (30, 40), (50, 16), (50, 40)]
    for row in steps:
        assert row.tokens_per_step == pytest.approx(13 / 3, abs=0.4)
        allowed = row.plain_step_ms + row.attention_floor_ms
        assert row.ratio == pytest.approx(row.verify_step_ms / allowed)
        allowed = row.rows_step_ms + row.attention_floor_ms
        assert row.rows_step_ms > 0 and row.rows_ratio == pytest.approx(
            row.verify_step_ms / allowed
        )
        # K and V of two layers and two heads of 16 in float32, of the context and every row
        kv_bytes = 2 * 2 * 2 * 16 * 4 * (row.context + row.rows_per_step)
        assert row.attention_floor_ms > kv_bytes / 1e6 * 1e3


def test_command(tmp_path, capsys):
    folder, output = tmp_path / "recorded", tmp_path / "rows.jsonl"
    folder.mkdir()
    record = {
        "Tree_Structure": [[0], [1], [1, 0], [1, 0, 0], [1, 1]],
        "Records": [{"Accept_length": [1, 4, 2]}],
    }
    (folder / "APPS_tree_size6.json").write_text(json.dumps(record))
    argv = ["bench", "speculation", "--model", "dummy", "--device", "cpu", "--num-slots", "999"]
    argv += ["--prompt-tokens", "12", "--new-tokens", "24", "--contexts", "20", "--steps", "2"]
    argv += ["--draft-rows", "16", "--workloads", str(folder), "--output", str(output)]
    assert main(argv) == 0
    assert "recorded tokens/step" in capsys.readouterr().out
    (replay,) = read_rows_of(output, ReplayRow, "speculation_replay")
    assert replay.recording == "APPS_tree_size6" and replay.num_different == 0
    assert len(read_rows_of(output, VerifyRow, "speculation_step")) == 1
    assert main([*argv, "--draft-rows", "4"]) == 2
    assert "draft_rows: expected at least 16" in capsys.readouterr().err
