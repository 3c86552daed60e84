"""What is shipped: a Hugging Face directory within its limits that solves held-out problems."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ramify.core.errors import InputError
from ramify.zoo import bundled_model_dir
from ramify.zoo.tasks import TASKS
from ramify.zoo.training.accuracy import AccuracyConfig, judge_accuracy, solved_share
from ramify.zoo.training.model import TinyConfig
from ramify.zoo.training.storage import load_model
from ramify.zoo.training.vocab import CONTEXT, build_tokenizer

MODEL_DIR = bundled_model_dir()


@pytest.fixture(scope="module")
def loaded() -> tuple[object, object]:
    return load_model(MODEL_DIR, "cpu")


def test_size_limits() -> None:
    files = list(MODEL_DIR.iterdir())
    assert sum(file.stat().st_size for file in files) <= 16_000_000
    with safe_open(MODEL_DIR / "model.safetensors", framework="pt") as weights:
        tensors = [weights.get_tensor(name) for name in weights.keys()]  # noqa: SIM118
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
    assert sum(tensor.numel() for tensor in tensors) <= 8_000_000


def test_config_is_a_llama_of_the_trained_shape() -> None:
    config = json.loads((MODEL_DIR / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] == CONTEXT >= 4096
    assert config["num_key_value_heads"] < config["num_attention_heads"]
    expected = TinyConfig()
    assert config["hidden_size"] == expected.hidden_size
    assert config["num_hidden_layers"] == expected.num_hidden_layers


def test_tokenizer_files_hold_the_built_tokenizer(loaded: tuple[object, object]) -> None:
    saved = json.loads((MODEL_DIR / "tokenizer.json").read_text())
    assert saved["model"]["vocab"] == json.loads(build_tokenizer().to_str())["model"]["vocab"]
    text = "puzzle 4 7 18 2 -> 24\nnaïve 日本 <bos\n"
    tokenizer = loaded[1]
    ids = tokenizer.encode(text)  # type: ignore[attr-defined]
    assert ids == build_tokenizer().encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text  # type: ignore[attr-defined]


def test_greedy_solves_most_held_out_problems(loaded: tuple[object, object]) -> None:
    rng = np.random.default_rng(99)
    cases = [
        ("puzzle", {}, 8, 0.35),
        ("sort", {"size": 16}, 2, 1.0),
        ("merge", {"size": 16}, 2, 1.0),
    ]
    cases += [("documents", {"num_tokens": 200, "hops": hops}, 3, 0.6) for hops in (1, 2)]
    for name, shape, count, floor in cases:
        problems = [TASKS[name].generate(rng, heldout=True, **shape) for _ in range(count)]
        assert solved_share(*loaded, problems) >= floor, name


def test_judge_knows_dead_ends(loaded: tuple[object, object]) -> None:
    table = judge_accuracy(*loaded, AccuracyConfig(num_problems=15))
    for row in table.values():
        assert row["states"] > 20
        assert row["greedy"] >= 0.9


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="expected one of ramify-tiny, got 'ramify-huge'"):
        bundled_model_dir("ramify-huge")


def test_zoo_and_tasks_import_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None;"
        "import ramify.zoo, ramify.zoo.tasks; print(len(ramify.zoo.tasks.TASKS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(len(TASKS))
