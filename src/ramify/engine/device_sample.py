"""Sampling on the device: the launches, and the results as the engine's lists.

`DeviceSampler.draw` never waits for the device and reuses its buffers, so it can be captured in a
CUDA graph; it gives the tokens of `sample` for the same logits. Runs on NVIDIA GPUs, and on a CPU
under Triton's interpreter (TRITON_INTERPRET=1) for tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ramify.core.errors import InputError, expected_got
from ramify.core.outputs import TokenLogprob
from ramify.engine.draws import MOST_TOP, alternatives
from ramify.engine.edits import edit_bound
from ramify.engine.kernels.draw import draw_kernel, fold_kernel, rank_kernel
from ramify.engine.kernels.edit import copy_kernel, edit_kernel, mask_kernel
from ramify.engine.kernels.filter import filter_kernel
from ramify.engine.kernels.top import fold_top_kernel, part_top_kernel
from ramify.engine.packed import Packed
from ramify.engine.penalties import TokenCounts
from ramify.engine.sample import SampleRow, top_logprobs
from ramify.engine.sample_batch import SampleBatch

BLOCK = 2048  # tokens of a part: the same for every batch, or a row's last bits would move with it
RANK_BLOCK = 4096
FILTER_BLOCK = 8192
WINDOW = 4096  # values among which a filter selects in registers
EDIT_BLOCK = 1024


class Drawn:
    """Results of the last draw, on the device; the next draw overwrites them.

    tokens [N] int64; logprobs [N] float32, natural log, of the model's own logits; ranks [N] int32,
    from 1, current only where ranks were asked for. Entries beyond the batch keep old values.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        self._packed = Packed(
            {
                "tokens": (torch.int64, capacity),
                "logprobs": (torch.float32, capacity),
                "ranks": (torch.int32, capacity),
            }
        )
        self._bytes = torch.zeros(self._packed.num_bytes, dtype=torch.uint8, device=device)
        views = self._packed.views(self._bytes)
        self.tokens, self.logprobs, self.ranks = (views[n] for n in ("tokens", "logprobs", "ranks"))

    def to_host(self) -> tuple[list[int], list[float], list[int]]:
        """Wait for the draw; tokens, log-probabilities and ranks by one copy."""
        views = self._packed.views(self._bytes.cpu())
        return views["tokens"].tolist(), views["logprobs"].tolist(), views["ranks"].tolist()


class DeviceSampler:
    """Draws up to `capacity` tokens a step: fill `batch`, then `draw`.

    Edits of single tokens (penalties, bias, bans) take a float32 copy of the logits of each draw,
    so a sampler has room for them only when it is made with some `edit_capacity`, in tokens over
    all draws. A mask counts as an edit, and `mask_capacity` is room for so many different ones.
    With `counts` penalties are by these, and histories no part of the batch.
    """

    def __init__(
        self,
        capacity: int,
        vocab_size: int,
        device: torch.device,
        *,
        edit_capacity: int = 0,
        mask_capacity: int = 0,
        counts: TokenCounts | None = None,
    ) -> None:
        words = -(-vocab_size // 32)
        self.batch = SampleBatch(
            capacity, edit_capacity, device, mask_capacity=mask_capacity, mask_words=words
        )
        self.vocab_size = vocab_size
        self._counts = counts
        self._parts = -(-vocab_size // BLOCK)
        self._folded_parts = 1 << (self._parts - 1).bit_length()
        shape = (capacity, self._parts)
        self._best, self._max, self._sum = (torch.empty(shape, device=device) for _ in range(3))
        self._token = torch.empty(shape, dtype=torch.int32, device=device)
        self._no_copies = torch.empty(0, vocab_size, device=device)
        self._window = torch.empty(capacity, WINDOW, device=device)
        self._threshold = torch.empty(capacity, device=device)
        self._cut = torch.empty(capacity, dtype=torch.int32, device=device)
        self._norm = torch.empty(capacity, device=device)
        self._drawn = Drawn(capacity, device)

    def draw(
        self, logits: Tensor, *, num_draws: int | None = None, with_ranks: bool = False
    ) -> Drawn:
        """Draw a token for every entry of the batch.

        Args:
            num_draws: entries looked at, the first so many; None: all there is room for.
            logits: [rows, vocab] float32, bfloat16 or float16, the last axis contiguous; they stay
                as they are.
            with_ranks: also count the logits above each drawn one.
        Raises:
            InputError: the logits have another vocabulary or layout.
        """
        self._check(logits)
        draws = self.batch.capacity if num_draws is None else num_draws
        copies = self._edit(logits, draws) if self.batch.edit_capacity else self._no_copies
        self._filter(logits, copies, draws)
        self._choose(logits, copies, draws)
        if with_ranks:
            rank_kernel[(draws,)](
                logits, logits.stride(0), self.batch["row"], self._drawn.tokens, self._drawn.ranks,
                self.vocab_size, BLOCK=RANK_BLOCK, num_warps=8,
            )  # fmt: skip
        return self._drawn

    def top(self, logits: Tensor, draws: int) -> Tensor:
        """The alternatives of the last draw, [draws, 2, MOST_TOP] int32; see draws.Report.

        Args:
            logits: those that were drawn from.
        """
        row, wanted = self.batch["row"], self.batch["top"]
        shape = (draws, self._parts, MOST_TOP)
        keys, places = logits.new_empty((2, *shape), dtype=torch.int32)
        top = logits.new_empty((draws, 2, MOST_TOP), dtype=torch.int32)
        part_top_kernel[shape[:2]](
            logits, logits.stride(0), row, wanted, keys, places, self.vocab_size,
            MOST=MOST_TOP, BLOCK=BLOCK,
        )  # fmt: skip
        fold_top_kernel[(draws,)](
            row, wanted, self._norm, keys, places, top, self._parts,
            MOST=MOST_TOP, SIZE=self._folded_parts * MOST_TOP, num_warps=8,
        )  # fmt: skip
        return top

    def _edit(self, logits: Tensor, draws: int) -> Tensor:
        """Copies [draws, V] float32 of the logits of edited draws, edited."""
        batch = self.batch
        # not kept: in captured steps, which take turns, all sizes share the memory
        copies = torch.empty(draws, self.vocab_size, device=logits.device)
        if self._counts is not None:
            self._counts.penalise(logits, copies, batch["row"], batch["edit_indptr"], BLOCK)
        else:
            copy_kernel[(draws, self._parts)](
                logits, logits.stride(0), copies, batch["row"], batch["edit_indptr"],
                self.vocab_size, BLOCK=BLOCK,
            )  # fmt: skip
        if batch.mask_capacity:
            mask_kernel[(draws, self._parts)](
                copies, batch["mask_row"], batch["mask"], batch.mask_words,
                self.vocab_size, BLOCK=BLOCK,
            )  # fmt: skip
        edits = (batch[f"edit_{name}"] for name in ("indptr", "token", "scale", "minus", "plus"))
        edit_kernel[(draws,)](copies, *edits, self.vocab_size, BLOCK=EDIT_BLOCK)
        return copies

    def _filter(self, logits: Tensor, copies: Tensor, draws: int) -> None:
        batch = self.batch
        rules = (batch[name] for name in ("row", "temperature", "top_k", "top_p", "min_p"))
        filter_kernel[(draws,)](
            logits, logits.stride(0), copies, batch["edit_indptr"], *rules,
            self._window, self._threshold, self._cut, self.vocab_size,
            WINDOW=WINDOW, BLOCK=FILTER_BLOCK, num_warps=32,
        )  # fmt: skip

    def _choose(self, logits: Tensor, copies: Tensor, draws: int) -> None:
        batch, drawn = self.batch, self._drawn
        parts = (self._best, self._token, self._max, self._sum)
        rules = (batch[name] for name in ("row", "temperature", "stream", "position"))
        draw_kernel[(draws, self._parts)](
            logits, logits.stride(0), copies, batch["edit_indptr"],
            self._threshold, self._cut, *rules, *parts, self.vocab_size,
            BLOCK=BLOCK, FAST=logits.device.type == "cuda",
        )  # fmt: skip
        fold_kernel[(draws,)](
            logits, logits.stride(0), batch["row"], *parts,
            drawn.tokens, drawn.logprobs, self._norm, self._parts,
            PARTS=self._folded_parts, num_warps=1,
        )  # fmt: skip

    def _check(self, logits: Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != self.vocab_size:
            wanted = f"[rows, {self.vocab_size}]"
            raise InputError(expected_got("logits", wanted, tuple(logits.shape)))
        if logits.stride(1) != 1:
            raise InputError(expected_got("logits", "a contiguous last axis", logits.stride()))


def sample_on_device(logits: Tensor, rows: Sequence[SampleRow]) -> list[TokenLogprob]:
    """What `sample` returns, drawn on the device of `logits` [n, vocab]; waits for the results."""
    num_edits = sum(map(edit_bound, rows))
    num_masks = len({id(row.mask) for row in rows if row.mask is not None})
    sampler = _sampler(
        _power_of_two(max(len(rows), 16)),
        logits.shape[1],
        logits.device,
        _power_of_two(max(num_edits, 1024)) if num_edits else 0,
        _power_of_two(max(num_masks, 16)) if num_masks else 0,
    )
    sampler.batch.fill(rows)
    columns = sampler.draw(logits, with_ranks=True).to_host()
    best = _alternatives(sampler, logits, rows)
    return [
        TokenLogprob(
            token_id=token, logprob=logprob, rank=rank, top=best.get(i, ())[: row.params.logprobs]
        )
        for i, (row, token, logprob, rank) in enumerate(zip(rows, *columns, strict=False))
    ]


def _alternatives(
    sampler: DeviceSampler, logits: Tensor, rows: Sequence[SampleRow]
) -> dict[int, tuple[tuple[int, float], ...]]:
    """The most probable tokens of draws that ask for them, as many as any does; after the draw."""
    wanted = {i: k for i, row in enumerate(rows) if (k := row.params.logprobs)}
    few = [i for i, k in wanted.items() if k <= MOST_TOP]
    many = [i for i in wanted if i not in few]
    best: dict[int, tuple[tuple[int, float], ...]] = {}
    if few:
        top = sampler.top(logits, len(rows)).cpu().numpy()[few]
        best |= zip(few, alternatives(top, MOST_TOP), strict=True)
    if many:
        index = torch.tensor([rows[i].row for i in many], device=logits.device)
        most = max(wanted[i] for i in many)
        best |= zip(many, top_logprobs(logits[index].float(), most), strict=True)
    return best


@lru_cache(maxsize=4)
def _sampler(
    capacity: int, vocab_size: int, device: torch.device, edit_capacity: int, mask_capacity: int
) -> DeviceSampler:
    """Steps of about the same size share their buffers."""
    return DeviceSampler(
        capacity,
        vocab_size,
        device,
        edit_capacity=edit_capacity,
        mask_capacity=mask_capacity,
    )


def _power_of_two(size: int) -> int:
    """The next power of two."""
    return 1 << (size - 1).bit_length()
