"""How a GPU's memory is shared out, on a pretended GPU: sizes counted by hand or from tensors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from ramify import LLM, ConfigError
from ramify.engine.memory import COMMUNICATOR, GIB, LIBRARIES, MemoryBudget, measure, step_bytes
from ramify.models import ModelConfig, Shard, read_config
from ramify.testing.models import save_tiny_llama

TOTAL, FREE = 80 * GIB, 76 * GIB


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[ModelConfig, int]:
    """A model's configuration, and its parameters as transformers counts them."""
    model = save_tiny_llama(tmp_path)
    return read_config(tmp_path), model.num_parameters()


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (FREE, TOTAL))
    return torch.device("cuda")


def test_the_pool_gets_what_is_left(
    tiny: tuple[ModelConfig, int], pretended_gpu: torch.device
) -> None:
    config, num_parameters = tiny
    budget = measure(
        config,
        torch.bfloat16,
        pretended_gpu,
        Shard(),
        utilization=0.5,
        max_rows=1000,
        logit_rows=10,
    )
    assert budget.weights == 2 * num_parameters
    assert budget.used == 4 * GIB + LIBRARIES
    assert budget.limit == 40 * GIB
    # per row: three states of 48; the MLP's gate, up and product of 64 each, or q, k, v and the
    # output twice, 4 + 2 heads of 16 each; 96 logits in 16 bits, and twice in 32
    row = 3 * 48 + max(3 * 64, 2 * (2 * 4 + 2 * 2) * 16)
    assert budget.step == 1000 * row * 2 + 10 * 96 * (2 + 8)
    assert budget.kv_pool == 40 * GIB - (4 * GIB + LIBRARIES) - budget.weights - budget.step
    budget.require(budget.kv_pool)
    with pytest.raises(ConfigError):
        budget.require(budget.kv_pool + 1)


def test_a_part_of_a_model_weighs_less_and_meets_others(
    tiny: tuple[ModelConfig, int], pretended_gpu: torch.device
) -> None:
    config, num_parameters = tiny
    sizes = {"utilization": 0.9, "max_rows": 64, "logit_rows": 64}
    half = measure(config, torch.float32, pretended_gpu, Shard(rank=1, size=2), **sizes)
    assert 2 * num_parameters <= half.weights < 4 * num_parameters
    assert half.used == 4 * GIB + LIBRARIES + COMMUNICATOR
    whole = step_bytes(config, torch.float32, max_rows=64, logit_rows=64)
    assert half.step <= whole


def test_an_error_names_the_sizes() -> None:
    budget = MemoryBudget(
        total=80 * GIB, used=5 * GIB, weights=15 * GIB, step=2 * GIB, limit=72 * GIB
    )
    with pytest.raises(ConfigError) as caught:
        budget.require(60 * GIB)
    sizes = dict(re.findall(r"(\w[a-zA-Z ]*) (\d+\.\d\d) GiB", str(caught.value)))
    assert "60.00 GiB, got 50.00 GiB" in str(caught.value)
    assert sizes["limit"] == "72.00" and sizes["weights"] == "15.00"
    assert sizes["a step"] == "2.00" and sizes["in use"] == "5.00"
    full = MemoryBudget(total=GIB, used=GIB, weights=GIB, step=0, limit=GIB)
    with pytest.raises(ConfigError, match=r"got 0\.00 GiB"):
        full.require(0)


def test_a_pool_beyond_a_cpus_memory(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path)
    # 2 layers x K and V x 2 heads of 16 in float32: 512 bytes a slot
    wanted = rf"num_slots: expected .*, got {10**14} \(a KV pool of {512e14 / GIB:.2f} GiB\)"
    with pytest.raises(ConfigError, match=wanted):
        LLM(str(tmp_path), device="cpu", num_slots=10**14)
