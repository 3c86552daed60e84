"""torch's scaled_dot_product_attention on a dense copy of every branch's KV.

Its best case: the copies are made beforehand and are in no time; what it cannot do is share.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ramify.bench.attention.problem import Problem
from ramify.bench.attention.providers.base import Absent, Prepared, nothing, read_per_row

MAX_COPY_BYTES = {"cuda": 32 << 30, "cpu": 1 << 30}


class Sdpa:
    """One padded batch, a row per branch, q of one token."""

    def prepare(self, problem: Problem) -> Prepared:
        """Copy every row's path. Raises Absent when that takes too much memory."""
        slots = problem.row_slots
        longest = max((len(own) for own in slots), default=0)
        num_bytes = len(slots) * longest * problem.heads.token_bytes
        if num_bytes > MAX_COPY_BYTES[problem.device.type]:
            raise Absent(f"a KV copy per branch takes {num_bytes / 2**30:.0f} GiB")
        shape = (len(slots), problem.heads.num_kv_heads, longest, problem.heads.head_dim)
        keys, values = problem.k.new_zeros(shape), problem.v.new_zeros(shape)
        mask = torch.zeros(len(slots), 1, 1, longest, dtype=torch.bool, device=problem.device)
        for row, own in enumerate(slots):
            index = torch.from_numpy(own).to(problem.device)
            keys[row, :, : len(own)] = problem.k[index].transpose(0, 1)
            values[row, :, : len(own)] = problem.v[index].transpose(0, 1)
            mask[row, ..., : len(own)] = True
        # a mask keeps the fastest kernels away, so there is none where lengths are equal
        is_ragged = not bool(mask.all())

        def run() -> Tensor:
            out = scaled_dot_product_attention(
                problem.q[:, :, None],
                keys,
                values,
                attn_mask=mask if is_ragged else None,
                enable_gqa=problem.heads.group > 1,
            )
            return out[:, :, 0]

        return Prepared(plan=nothing, run=run, facts=lambda: read_per_row(problem))
