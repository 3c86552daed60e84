"""One rank of test_shard.py: `shard_rank.py RANK SIZE STORE OUT MODEL_DIR...`, run as a program.

Writes for every model the logits of a prompt, by the plain decoder and by the fused one, and the
scales of an fp8 KV pool.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from ramify.engine.kv_scales import kv_scales
from ramify.models import Decoder, Shard, load_model
from ramify.models.fused import FusedDecoder

TOKENS = torch.tensor([3, 1, 4, 1, 5, 9, 2])
POSITIONS = torch.arange(len(TOKENS))
SLOTS = torch.tensor([4, 8, 0, 2, 7, 5, 1])
KEEP = torch.tensor([6, 0])


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    heads = (part.transpose(0, 1)[None] for part in (q, k, v))
    out = F.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True)
    return out[0].transpose(0, 1)


def plain_logits(decoder: Decoder, keep: Tensor | None) -> Tensor:
    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        return causal(q, k, v)

    return decoder.forward(TOKENS, POSITIONS, attend, keep)


def fused_logits(decoder: Decoder) -> Tensor:
    config = decoder.config
    shape = (config.num_layers, 9, config.num_kv_heads, config.head_dim)
    k_pool, v_pool = (torch.full(shape, torch.nan) for _ in range(2))

    def attend(layer: int, q: Tensor, window: int | None) -> Tensor:
        return causal(q, k_pool[layer][SLOTS], v_pool[layer][SLOTS])

    return FusedDecoder(decoder).forward(TOKENS, POSITIONS, SLOTS, k_pool, v_pool, attend)


def main() -> None:
    rank, size = int(sys.argv[1]), int(sys.argv[2])
    store = dist.FileStore(sys.argv[3], size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    results = {}
    for path in sys.argv[5:]:
        decoder = load_model(path, shard=Shard(rank, size))
        plain, kept = plain_logits(decoder, None), plain_logits(decoder, KEEP)
        scales = torch.stack(kv_scales(decoder))
        results[Path(path).name] = {"plain": plain, "kept": kept, "scales": scales}
        results[Path(path).name]["fused"] = fused_logits(decoder)  # changes the decoder
    torch.save(results, sys.argv[4])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
