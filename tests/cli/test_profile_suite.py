"""`ramify profile suite --measure`, end to end on a CPU with small models of both libraries."""

from __future__ import annotations

import json

import pytest
import torch

from ramify.cli.main import main
from ramify.profile import component
from ramify.profile.operators import kinds

UNET = {
    "_class_name": "UNet2DConditionModel", "sample_size": 8, "block_out_channels": [32, 64],
    "layers_per_block": 1, "cross_attention_dim": 16, "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}  # fmt: skip
VIDEO = {
    "_class_name": "UNet3DConditionModel", "sample_size": 8, "block_out_channels": [32, 64],
    "layers_per_block": 1, "cross_attention_dim": 16, "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D"],
    "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
}  # fmt: skip
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 128,
}  # fmt: skip
PAGE = """# Measured
<!-- table: measured-passes -->
<!-- end -->
<!-- table: measured-generations -->
<!-- end -->
<!-- table: measured-temporal -->
<!-- end -->
"""


@pytest.fixture
def models(tmp_path):
    pytest.importorskip("diffusers")
    folders = []
    for name, config in (("unet", UNET), ("video", VIDEO), ("llama", LLAMA)):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        (folders[-1] / "config.json").write_text(json.dumps(config))
    return [str(folder) for folder in folders]


def test_measured_rows_and_the_page_made_of_them(models, run_json, tmp_path):
    out, page = tmp_path / "out", tmp_path / "page.md"
    page.write_text(PAGE)
    argv = ["profile", "suite", "--preset", *models, "--measure", "both", "--repeats", "2"]
    document = run_json(*argv, "--hardware", "cpu", "--output", str(out), "--page", str(page))
    assert not document["failed"] and len(document["rows"]) == 3
    assert json.loads((out / "suite.json").read_text()) == document
    assert {path.name for path in out.iterdir()} >= {"unet.html", "video.json", "llama.json"}
    unet, video, llama = document["rows"]
    for part in (*unet["components"], *video["components"], *llama["components"]):
        assert [row["attention"] for row in part["measured"]] == ["flash", "naive"]
        for row in part["measured"]:
            assert row["wall_low_s"] <= row["wall_s"] <= row["wall_high_s"] and not row["error"]
            assert row["traced_s"] >= row["wall_low_s"] / 2 and 0 < row["busy_share"] <= 1
    assert kinds.CONVOLUTION in unet["components"][0]["measured"][0]["seconds"]
    assert kinds.TEMPORAL in video["components"][0]["measured"][0]["seconds"]
    filled = page.read_text()
    for cell in ("unet`, denoiser", "llama`, decode", "| 16 (`", "frames |"):
        assert cell in filled
    page.write_text(PAGE)
    run_json("profile", "suite", "--rows", str(out / "suite.json"), "--page", str(page))
    assert page.read_text() == filled


def test_out_of_memory_costs_one_row_and_is_said(models, capsys, monkeypatch, tmp_path):
    def fill(module, device, filled=component.fill_weights):
        if type(module).__name__ == "UNet2DConditionModel":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40 GiB")
        return filled(module, device)

    monkeypatch.setattr(component, "fill_weights", fill)
    traces = tmp_path / "traces"
    argv = ["profile", "suite", "--preset", models[0], models[2], "--measure", "flash"]
    argv += ["--repeats", "1", "--output", str(tmp_path), "--trace", str(traces)]
    assert main(argv) == 1
    assert [path.name for path in traces.iterdir()] == ["llama"]
    assert (traces / "llama" / "decode-flash-eager.json.gz").stat().st_size < 50e6
    captured = capsys.readouterr()
    assert "denoiser, flash, eager: CUDA out of memory" in captured.err
    assert "llama, decode, flash, eager: " in captured.out and "told apart" in captured.out
    saved = json.loads((tmp_path / "suite.json").read_text())
    assert len(saved["rows"]) == 2
    assert [text[:18] for text in saved["failed"].values()] == ["CUDA out of memory"]


def test_bad_input(fails, tmp_path):
    assert "graphs on cuda only" in fails(
        "profile", "suite", "--preset", "llama_7b", "--measure", "flash", "--run", "graphs"
    )
    assert "cuda, or --preset" in fails("profile", "suite", "--measure", "both")
    (tmp_path / "rows.json").write_text("{}")
    assert "rows of a suite" in fails("profile", "suite", "--rows", str(tmp_path / "rows.json"))
    assert "hardware" in fails("profile", "suite", "--hardware", "abacus")


def test_ramifys_own_step_is_one_more_row(run_json):
    argv = ["profile", "suite", "--preset", "ramify_step", "--hardware", "h200"]
    (row,) = run_json(*argv)["rows"]
    assert row["num_params"] == pytest.approx(8.03e9, rel=0.01) and row["linear"] > 0.5
    (row,) = run_json(*argv, "--measure", "flash", "--repeats", "2")["rows"]
    (measured,) = row["components"][0]["measured"]
    assert measured["error"] is None and measured["wall_s"] > 0
    assert {kinds.LINEAR, kinds.DECODE, kinds.ELEMENTWISE} <= set(measured["seconds"])
