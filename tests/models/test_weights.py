"""Safetensors files, whole and sharded: what is loaded, and what each kind of damage says."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ramify.core.errors import ConfigError
from ramify.models import Decoder, load_model, weights
from ramify.models.checkpoint import decoder_slots

Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def single(pristine_llama: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Llama in one file, to damage."""
    return shutil.copytree(pristine_llama, tmp_path / "single")


@pytest.fixture
def sharded(pristine_llama: Path, tmp_path: Path) -> Path:
    """The same weights in several files with an index, to damage."""
    path = tmp_path / "sharded"
    model = AutoModelForCausalLM.from_pretrained(pristine_llama)
    model.save_pretrained(path, max_shard_size="20KB")
    assert len(list(path.glob("*.safetensors"))) >= 3
    return path


def edit_tensors(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def edit_index(model_dir: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = model_dir / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    edit(index)
    path.write_text(json.dumps(index))


def shard_of(model_dir: Path, tensor: str) -> Path:
    index = json.loads((model_dir / "model.safetensors.index.json").read_text())
    return model_dir / index["weight_map"][tensor]


def test_every_tensor_lands_where_it_belongs(single: Path, sharded: Path) -> None:
    saved = load_file(single / "model.safetensors")
    for path in (single, sharded):
        slots = decoder_slots(load_model(path))
        assert slots.keys() == saved.keys()
        for name, slot in slots.items():
            assert torch.equal(slot.target, saved[name]), name


def test_slots_cover_every_parameter_once(pristine_llama: Path) -> None:
    decoder = load_model(pristine_llama)
    for slot in decoder_slots(decoder).values():
        slot.target.zero_()
    assert all(not parameter.any() for parameter in decoder.parameters())
    for slot in decoder_slots(decoder).values():
        slot.target.add_(1.0)
    assert all((parameter == 1.0).all() for parameter in decoder.parameters())


def test_weights_are_converted_to_the_dtype_asked(single: Path) -> None:
    edit_tensors(
        single / "model.safetensors",
        lambda tensors: tensors.update({k: v.bfloat16() for k, v in tensors.items()}),
    )
    want = load_file(single / "model.safetensors")[Q_PROJ].float()
    assert torch.equal(decoder_slots(load_model(single))[Q_PROJ].target, want)


def test_redundant_tensors_are_passed_over(single: Path) -> None:
    edit_tensors(
        single / "model.safetensors",
        lambda tensors: tensors.update(
            {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
        ),
    )
    load_model(single)
    # a tied model may still carry a copy of its embedding under the head's name
    config = json.loads((single / "config.json").read_text())
    (single / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    assert load_model(single).head is None


def test_missing_shard(sharded: Path) -> None:
    shard = shard_of(sharded, Q_PROJ)
    shard.unlink()
    with pytest.raises(ConfigError, match=rf"{shard.name}: expected shard .* got no such file"):
        load_model(sharded)


def test_tensor_missing_from_its_shard(sharded: Path) -> None:
    shard = shard_of(sharded, Q_PROJ)
    edit_tensors(shard, lambda tensors: tensors.pop(Q_PROJ))
    with pytest.raises(ConfigError, match=rf"{shard.name}: expected tensor {Q_PROJ}, got no such"):
        load_model(sharded)


def test_tensor_missing_from_the_index(sharded: Path) -> None:
    edit_tensors(shard_of(sharded, Q_PROJ), lambda tensors: tensors.pop(Q_PROJ))
    edit_index(sharded, lambda index: index["weight_map"].pop(Q_PROJ))
    with pytest.raises(ConfigError, match=rf"index\.json: expected tensor {Q_PROJ}, got no such"):
        load_model(sharded)


def test_missing_tensors_of_a_single_file(single: Path) -> None:
    def edit(tensors: dict[str, Any]) -> None:
        del tensors["lm_head.weight"], tensors["model.norm.weight"]

    edit_tensors(single / "model.safetensors", edit)
    with pytest.raises(
        ConfigError, match=r"model\.safetensors: expected tensor lm_head.weight \(and 1 more\)"
    ):
        load_model(single)


def test_unexpected_tensor(single: Path) -> None:
    extra = "model.layers.0.self_attn.q_proj.bias"
    edit_tensors(
        single / "model.safetensors", lambda tensors: tensors.update({extra: torch.ones(32)})
    )
    with pytest.raises(ConfigError, match=rf"model\.safetensors: expected only .* got {extra}"):
        load_model(single)


def test_wrong_shape(single: Path) -> None:
    edit_tensors(
        single / "model.safetensors",
        lambda tensors: tensors.update({Q_PROJ: tensors[Q_PROJ][:16].clone()}),
    )
    with pytest.raises(
        ConfigError,
        match=rf"model\.safetensors: {Q_PROJ}: expected shape \[32, 32\], got \[16, 32\]",
    ):
        load_model(single)


def test_norm_of_one_element_does_not_broadcast(single: Path) -> None:
    name = "model.norm.weight"
    edit_tensors(
        single / "model.safetensors", lambda tensors: tensors.update({name: torch.ones(1)})
    )
    with pytest.raises(ConfigError, match=rf"{name}: expected shape \[32\], got \[1\]"):
        load_model(single)


def test_integer_tensor(single: Path) -> None:
    edit_tensors(
        single / "model.safetensors",
        lambda tensors: tensors.update({Q_PROJ: tensors[Q_PROJ].to(torch.int8)}),
    )
    with pytest.raises(ConfigError, match=rf"{Q_PROJ}: expected a floating-point tensor, got .*8"):
        load_model(single)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_corrupt_file(sharded: Path, damage: str) -> None:
    shard = shard_of(sharded, Q_PROJ)
    content = shard.read_bytes()
    shard.write_bytes(
        {"truncated": content[:-100], "garbage": b"\xff" * 64 + content[64:], "empty": b""}[damage]
    )
    with pytest.raises(ConfigError, match=rf"{shard.name}: expected a safetensors file, got"):
        load_model(sharded)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda index: index.pop("weight_map"), "weight_map: expected at least one tensor"),
        (lambda index: index.update(weight_map=[]), "weight_map: expected an object, got"),
        (
            lambda index: index["weight_map"].update({Q_PROJ: "../model.safetensors"}),
            rf"weight_map.{Q_PROJ}: expected the name of a file beside the index",
        ),
        (lambda index: index["weight_map"].update({Q_PROJ: 3}), rf"weight_map.{Q_PROJ}: .* got 3"),
    ],
)
def test_bad_index(sharded: Path, edit: Callable[[dict[str, Any]], object], message: str) -> None:
    edit_index(sharded, edit)
    with pytest.raises(ConfigError, match=rf"index\.json: {message}"):
        load_model(sharded)


def test_index_that_is_no_json(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text("{")
    with pytest.raises(ConfigError, match=r"index\.json: expected a JSON object"):
        load_model(sharded)


def test_no_weights_at_all(single: Path) -> None:
    (single / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"expected model\.safetensors or .* got neither file"):
        load_model(single)
    (single / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin \(convert it to safetensors\)"):
        load_model(single)


def test_dummy_weights_of_two_dtypes_agree(pristine_llama: Path) -> None:
    exact = decoder_slots(load_model(pristine_llama, load_format="dummy"))
    half = decoder_slots(load_model(pristine_llama, load_format="dummy", dtype="bfloat16"))
    for name, slot in exact.items():
        assert torch.equal(slot.target.bfloat16(), half[name].target), name


def test_dummy_weights_follow_the_seed(single: Path) -> None:
    (single / "model.safetensors").unlink()

    def draw(seed: int) -> dict[str, torch.Tensor]:
        decoder = load_model(single, load_format="dummy", seed=seed)
        return {name: slot.target.clone() for name, slot in decoder_slots(decoder).items()}

    first, again, other = draw(3), draw(3), draw(4)
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name
        if name.endswith("norm.weight"):
            assert (tensor == 1.0).all(), name
        else:
            assert not torch.equal(tensor, other[name]), name
            assert 0.015 < tensor.std() < 0.025, name
    same_shape = [first[f"model.layers.{index}.mlp.up_proj.weight"] for index in (0, 1)]
    assert not torch.equal(*same_shape)


def test_dummy_weights_on_a_cpu_are_one_draw_per_tensor(pristine_llama: Path) -> None:
    """Their bits are what benchmarks and recorded results were made with."""
    decoder = load_model(pristine_llama, load_format="dummy", seed=3)
    generator = torch.Generator()
    for name, slot in decoder_slots(decoder).items():
        if not name.endswith("norm.weight"):
            generator.manual_seed(zlib.crc32(f"3:{name}".encode()))
            noise = torch.randn(slot.shape, generator=generator)
            assert torch.equal(slot.target, noise * decoder.config.init_std), name


@pytest.mark.gpu
def test_a_checkpoint_on_a_gpu_equals_the_one_on_a_cpu(single: Path, sharded: Path) -> None:
    for path in (single, sharded):
        for dtype in ("float32", "bfloat16"):
            want = decoder_slots(load_model(path, dtype=dtype))
            for name, slot in decoder_slots(load_model(path, dtype=dtype, device="cuda")).items():
                assert slot.target.is_cuda and torch.equal(slot.target.cpu(), want[name].target)


@pytest.mark.gpu
def test_dummy_weights_on_a_gpu_are_drawn_in_little_memory(
    single: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((single / "config.json").read_text()) | {"vocab_size": 1 << 20}
    (single / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(weights, "CHUNK_ELEMENTS", 1 << 20)

    def draw(seed: int) -> Decoder:
        return load_model(single, load_format="dummy", seed=seed, device="cuda", dtype="bfloat16")

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    first = draw(3)
    held = torch.cuda.memory_allocated() - before
    assert torch.cuda.max_memory_allocated() - before - held <= 10 * (1 << 20)
    again, other = draw(3), draw(4)
    assert torch.equal(first.embedding, again.embedding)
    assert not torch.equal(first.embedding, other.embedding)
    # no chunk repeats another
    chunks = first.embedding.view(-1, 1 << 20).float()
    assert len(chunks) == 32 and chunks.unique(dim=0).shape == chunks.shape
    assert (chunks.std(dim=1) - first.config.init_std).abs().max() < 1e-3
