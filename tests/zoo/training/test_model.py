"""Training's model against transformers' Llama, and its two masks against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ramify.zoo.training.model import TinyConfig, TinyLlama, block_mask, dense_mask
from ramify.zoo.training.optim import OptimConfig, orthogonalize
from ramify.zoo.training.packing import DataConfig, make_batch
from ramify.zoo.training.puzzle_data import PuzzleData

SMALL = TinyConfig(
    hidden_size=48,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
)


def batch_ends(row_length: int) -> torch.Tensor:
    config = DataConfig(rows=2, row_length=row_length, max_number=6)
    batch = make_batch(config, PuzzleData(6), 0)
    return torch.from_numpy(batch.ends.astype(np.int64))


def random_model() -> TinyLlama:
    torch.manual_seed(0)
    model = TinyLlama(SMALL)
    torch.nn.init.normal_(model.lm_head.weight, std=0.1)
    return model


def test_logits_equal_transformers() -> None:
    model = random_model()
    other = LlamaForCausalLM(LlamaConfig(**SMALL.hf()))
    other.load_state_dict(model.state_dict(), strict=True)
    tokens = torch.randint(0, SMALL.vocab_size, (2, 50))
    positions = torch.arange(50).expand(2, 50)
    with torch.no_grad():
        ours = model(tokens, positions, dense_mask(torch.full((2, 50), 50)))
        theirs = other.eval()(tokens).logits
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_branch_of_a_tree_gets_the_logits_of_its_path_alone() -> None:
    """prompt 0..5, branches 6..9 and 10..12: the second sees nothing of the first."""
    model = random_model()
    tokens = torch.randint(0, SMALL.vocab_size, (1, 13))
    positions = torch.tensor([[*range(6), *range(6, 10), *range(6, 9)]])
    ends = torch.tensor([[13] * 6 + [10] * 4 + [13] * 3])
    path = torch.cat([tokens[:, :6], tokens[:, 10:]], dim=1)
    with torch.no_grad():
        tree = model(tokens, positions, dense_mask(ends))
        alone = model(path, torch.arange(9)[None], dense_mask(torch.full((1, 9), 9)))
    torch.testing.assert_close(tree[:, 10:], alone[:, 6:], atol=1e-5, rtol=1e-5)


def test_block_mask_means_the_dense_mask() -> None:
    ends = batch_ends(1024)
    dense = dense_mask(ends)[:, 0]
    blocks = block_mask(ends)
    index = torch.arange(1024)
    rows = torch.arange(2)[:, None, None]
    by_token = blocks.mask_mod(rows, rows, index[None, :, None], index[None, None, :])
    assert torch.equal(by_token, dense)
    tiles = dense.unflatten(1, (8, 128)).unflatten(3, (8, 128))
    full = flags(blocks.full_kv_num_blocks, blocks.full_kv_indices)
    partial = flags(blocks.kv_num_blocks, blocks.kv_indices)
    assert torch.equal(full | partial, tiles.any(2).any(-1))
    assert full.any()
    assert not (full & ~tiles.all(2).all(-1)).any()
    assert not (full & partial).any()


def flags(counts: torch.Tensor | None, indices: torch.Tensor | None) -> torch.Tensor:
    """[B, rows, columns] from the compressed form."""
    assert counts is not None
    assert indices is not None
    out = torch.zeros(indices[:, 0].shape, dtype=torch.bool)
    listed = torch.arange(indices.shape[-1]) < counts[:, 0, :, None]
    out.scatter_(2, indices[:, 0].long(), listed)
    return out


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 24, 24)])
def test_orthogonalize_brings_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(1)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
    assert values.min() > 0.3
    assert values.max() < 1.4


def test_learning_rate_warms_up_and_ends_near_zero() -> None:
    optim = OptimConfig(warmup_steps=10)
    scales = [optim.scale(step, 1000) for step in range(1000)]
    assert scales[0] == pytest.approx(0.1)
    assert max(scales) == 1.0
    assert 0 < scales[-1] < 0.01
    assert scales[500:] == sorted(scales[500:], reverse=True)
