"""Tiny random models on disk, for tests and examples that need a real engine in milliseconds."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def save_tiny_llama(
    path: Path,
    *,
    vocab_size: int = 96,
    max_positions: int = 512,
    eos_token_id: int | None = None,
    num_layers: int = 2,
    seed: int = 0,
) -> LlamaForCausalLM:
    """Write a random-weight Llama without a tokenizer; returns transformers' own model of it.

    Weights are drawn wide, so that distributions are peaked and ties do not occur.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=max_positions,
        initializer_range=0.3,
        eos_token_id=eos_token_id,
        bos_token_id=None,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(path)
    return model


def save_byte_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Write a tokenizer of 256 byte tokens: every text encodes, characters may span tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: index for index, symbol in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.save_pretrained(path)
    return fast
