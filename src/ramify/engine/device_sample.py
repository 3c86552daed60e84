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
from ramify.engine.edits import edit_bound
from ramify.engine.kernels.draw import draw_kernel, fold_kernel, rank_kernel
from ramify.engine.kernels.edit import copy_kernel, edit_kernel, mask_kernel
from ramify.engine.kernels.filter import filter_kernel
from ramify.engine.packed import Packed
from ramify.engine.sample import DrawTable, SampleRow, top_logprobs
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
    """

    def __init__(
        self,
        capacity: int,
        vocab_size: int,
        device: torch.device,
        *,
        edit_capacity: int = 0,
        mask_capacity: int = 0,
    ) -> None:
        words = -(-vocab_size // 32)
        self.batch = SampleBatch(
            capacity, edit_capacity, device, mask_capacity=mask_capacity, mask_words=words
        )
        self.vocab_size = vocab_size
        self._parts = -(-vocab_size // BLOCK)
        self._folded_parts = 1 << (self._parts - 1).bit_length()
        shape = (capacity, self._parts)
        self._best, self._max, self._sum = (torch.empty(shape, device=device) for _ in range(3))
        self._token = torch.empty(shape, dtype=torch.int32, device=device)
        self._copies = torch.empty(capacity if edit_capacity else 0, vocab_size, device=device)
        self._window = torch.empty(capacity, WINDOW, device=device)
        self._threshold = torch.empty(capacity, device=device)
        self._cut = torch.empty(capacity, dtype=torch.int32, device=device)
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
        if self.batch.edit_capacity:
            self._edit(logits, draws)
        self._filter(logits, draws)
        self._choose(logits, draws)
        if with_ranks:
            rank_kernel[(draws,)](
                logits, logits.stride(0), self.batch["row"], self._drawn.tokens, self._drawn.ranks,
                self.vocab_size, BLOCK=RANK_BLOCK, num_warps=8,
            )  # fmt: skip
        return self._drawn

    def _edit(self, logits: Tensor, draws: int) -> None:
        batch = self.batch
        copy_kernel[(draws, self._parts)](
            logits, logits.stride(0), self._copies, batch["row"], batch["edit_indptr"],
            self.vocab_size, BLOCK=BLOCK,
        )  # fmt: skip
        if batch.mask_capacity:
            mask_kernel[(draws, self._parts)](
                self._copies, batch["mask_row"], batch["mask"], batch.mask_words,
                self.vocab_size, BLOCK=BLOCK,
            )  # fmt: skip
        edits = (batch[f"edit_{name}"] for name in ("indptr", "token", "scale", "minus", "plus"))
        edit_kernel[(draws,)](self._copies, *edits, self.vocab_size, BLOCK=EDIT_BLOCK)

    def _filter(self, logits: Tensor, draws: int) -> None:
        batch = self.batch
        rules = (batch[name] for name in ("row", "temperature", "top_k", "top_p", "min_p"))
        filter_kernel[(draws,)](
            logits, logits.stride(0), self._copies, batch["edit_indptr"], *rules,
            self._window, self._threshold, self._cut, self.vocab_size,
            WINDOW=WINDOW, BLOCK=FILTER_BLOCK, num_warps=32,
        )  # fmt: skip

    def _choose(self, logits: Tensor, draws: int) -> None:
        batch, drawn = self.batch, self._drawn
        parts = (self._best, self._token, self._max, self._sum)
        rules = (batch[name] for name in ("row", "temperature", "stream", "position"))
        draw_kernel[(draws, self._parts)](
            logits, logits.stride(0), self._copies, batch["edit_indptr"],
            self._threshold, self._cut, *rules, *parts, self.vocab_size,
            BLOCK=BLOCK, FAST=logits.device.type == "cuda",
        )  # fmt: skip
        fold_kernel[(draws,)](
            logits, logits.stride(0), batch["row"], *parts, drawn.tokens, drawn.logprobs,
            self._parts, PARTS=self._folded_parts, num_warps=1,
        )  # fmt: skip

    def _check(self, logits: Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != self.vocab_size:
            wanted = f"[rows, {self.vocab_size}]"
            raise InputError(expected_got("logits", wanted, tuple(logits.shape)))
        if logits.stride(1) != 1:
            raise InputError(expected_got("logits", "a contiguous last axis", logits.stride()))


class DeviceDraws:
    """The draws of decode steps that follow one another, on the device; see decode_loop.Draws."""

    def __init__(self, capacity: int, vocab_size: int, device: torch.device) -> None:
        self._sampler = DeviceSampler(capacity, vocab_size, device)

    def fill(self, draws: DrawTable) -> None:
        """Take over how the next step draws; rows beyond draw nothing."""
        self._sampler.batch.fill_table(draws)

    def draw(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """A token [rows] int64 and its log-probability [rows] float32 for every row of logits."""
        rows = len(logits)
        drawn = self._sampler.draw(logits, num_draws=rows)
        self._sampler.batch.advance()
        return drawn.tokens[:rows], drawn.logprobs[:rows]


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
    wanted = [i for i, row in enumerate(rows) if row.params.logprobs]
    best: dict[int, tuple[tuple[int, float], ...]] = {}
    if wanted:
        index = torch.tensor([rows[i].row for i in wanted], device=logits.device)
        k = max(rows[i].params.logprobs or 0 for i in wanted)
        best = dict(zip(wanted, top_logprobs(logits[index].float(), k), strict=True))
    return [
        TokenLogprob(
            token_id=token, logprob=logprob, rank=rank, top=best.get(i, ())[: row.params.logprobs]
        )
        for i, (row, token, logprob, rank) in enumerate(zip(rows, *columns, strict=False))
    ]


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
