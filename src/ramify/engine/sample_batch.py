"""What the draws of one step need on the device: one buffer at fixed addresses, one copy a step.

The copy is asynchronous from pinned memory, two host buffers taking turns. Addresses never change,
so a captured CUDA graph draws by whatever was sent last; in steady decoding nothing has to be sent,
as `advance` moves all draws to their next position on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from ramify.core.errors import InputError, expected_got
from ramify.core.seeds import mix64
from ramify.engine.draws import MOST_TOP, DrawTable
from ramify.engine.edits import TokenEdits, edit_bound
from ramify.engine.packed import Packed
from ramify.engine.sample import COLDEST, SampleRow

NO_ROW = -1  # row of a draw that is none


class SampleBatch:
    """The draws of a step as views of one device tensor, one entry per draw.

    row [N] int32, -1 where there is no draw; stream [N] int64, mix64 of the branch's seed;
    position [N] int64, absolute, of the token to draw; temperature [N] float32, 0 is greedy;
    top_k [N] int32, 0 is off; top_p, min_p [N] float32; top [N] int32, the alternatives that a
    report tells, 0 where they are none or too many for it. Edits of single tokens (`TokenEdits`)
    are a CSR: edit_indptr [N + 1] int32, edit_token [E] int32, edit_scale, edit_minus, edit_plus
    [E] float32. Masks of tokens (structured/masks.py): mask_row [N] int32, -1 where there is none;
    mask [M * W] int32, W = ceil(vocab / 32), one for all draws that share it.
    """

    def __init__(
        self,
        capacity: int,
        edit_capacity: int,
        device: torch.device,
        *,
        mask_capacity: int = 0,
        mask_words: int = 0,
    ) -> None:
        self.capacity, self.edit_capacity = capacity, edit_capacity
        self.mask_capacity, self.mask_words = mask_capacity, mask_words
        edits, on_gpu = max(edit_capacity, 1), device.type == "cuda"
        integers = dict.fromkeys(("row", "top_k", "mask_row", "top"), capacity)
        integers |= {"edit_indptr": capacity + 1, "edit_token": edits}
        integers["mask"] = max(mask_capacity * mask_words, 1)
        floats = dict.fromkeys(("temperature", "top_p", "min_p"), capacity)
        floats |= dict.fromkeys(("edit_scale", "edit_minus", "edit_plus"), edits)
        self._packed = Packed(
            dict.fromkeys(("stream", "position"), (torch.int64, capacity))
            | {name: (torch.int32, count) for name, count in integers.items()}
            | {name: (torch.float32, count) for name, count in floats.items()}
        )
        size = self._packed.num_bytes
        self._hosts = [torch.zeros(size, dtype=torch.uint8, pin_memory=on_gpu) for _ in range(2)]
        self._copied = [torch.cuda.Event() if on_gpu else None for _ in range(2)]
        self._arrays = [
            {name: view.numpy() for name, view in self._packed.views(host).items()}
            for host in self._hosts
        ]
        # the rules that a table has left in each of them
        self._rules: list[tuple[Sequence[SampleRow], np.ndarray] | None] = [None, None]
        self._turn = 0
        self._bytes = torch.zeros(size, dtype=torch.uint8, device=device)
        self._views = self._packed.views(self._bytes)
        self["row"].fill_(NO_ROW)

    def __getitem__(self, name: str) -> Tensor:
        """The device view of an array, with all its room."""
        return self._views[name]

    def fill(self, rows: Sequence[SampleRow]) -> None:
        """Send what to draw, without waiting for the device; entry i is draw i.

        Raises:
            InputError: there are more draws, edits of tokens or masks than there is room for.
        """
        edits = {i: TokenEdits.of(row) for i, row in enumerate(rows) if edit_bound(row)}
        masks = {id(row.mask): row.mask for row in rows if row.mask is not None}
        need = {"draws": len(rows), "edits": sum(len(e.token) for e in edits.values())}
        need["masks"] = len(masks)
        room = {"draws": self.capacity, "edits": self.edit_capacity, "masks": self.mask_capacity}
        for name, count in need.items():
            if count > room[name]:
                raise InputError(expected_got(name, f"at most {room[name]}", count))
        with self._sending() as arrays:
            self._rules[self._turn] = None
            _write_draws(arrays, np.array([r.row for r in rows], np.int32), DrawTable.of(rows))
            self._write_rest(arrays, rows, edits, masks)

    def fill_table(self, draws: DrawTable) -> None:
        """Likewise where no token is edited or left out, and draw i is made from row i.

        Of rules that lie in the host's buffer already, as the same objects, positions are written.
        """
        count = len(draws.rule)
        if count > self.capacity:
            raise InputError(expected_got("draws", f"at most {self.capacity}", count))
        with self._sending() as arrays:
            known = self._rules[self._turn]
            if known is not None and known[0] is draws.rules and known[1] is draws.rule:
                arrays["position"][:count] = draws.position
                return
            self._rules[self._turn] = None  # until all of them are written
            _write_draws(arrays, np.arange(count), draws)
            self._write_rest(arrays, (), {}, {})
            self._rules[self._turn] = draws.rules, draws.rule

    def _write_rest(
        self,
        arrays: dict[str, np.ndarray],
        rows: Sequence[SampleRow],
        edits: Mapping[int, TokenEdits],
        masks: Mapping[int, np.ndarray],
    ) -> None:
        """Write edits and masks; without room for them the arrays are what they were at first."""
        if self.edit_capacity:
            _write_edits(arrays, edits)
            _write_masks(arrays, rows, masks, self.mask_words)

    @contextmanager
    def _sending(self) -> Iterator[dict[str, np.ndarray]]:
        """The host's arrays, to be written in the block and sent at its end."""
        self._turn = 1 - self._turn
        host, copied = self._hosts[self._turn], self._copied[self._turn]
        if copied is not None:
            copied.synchronize()
        yield self._arrays[self._turn]
        self._bytes.copy_(host, non_blocking=True)
        if copied is not None:
            copied.record()

    def advance(self) -> None:
        """Move every draw to its next position, on the device."""
        self["position"].add_(1)


def _write_draws(host: dict[str, np.ndarray], row: np.ndarray, draws: DrawTable) -> None:
    """Write what rules have to say once per rule, and spread it."""
    count, rules = len(row), draws.rules
    warm = np.array([r.params.temperature >= COLDEST for r in rules], dtype=np.bool_)
    stream = np.array([mix64(r.seed) for r in rules], np.uint64).view(np.int64)
    # the best token passes every filter, so greedy rows need none
    columns: dict[str, tuple[list[float], float]] = {
        "temperature": ([r.params.temperature for r in rules], 0.0),
        "top_k": ([min(r.params.top_k, 2**31 - 1) for r in rules], 0),
        "top_p": ([r.params.top_p for r in rules], 1.0),
        "min_p": ([r.params.min_p for r in rules], 0.0),
    }
    host["row"][:count] = row
    host["row"][count:] = NO_ROW
    host["position"][:count] = draws.position
    host["stream"][:count] = stream[draws.rule]
    top = [n if (n := r.params.logprobs or 0) <= MOST_TOP else 0 for r in rules]
    host["top"][:count] = np.array(top, np.int32)[draws.rule]
    for name, (values, off) in columns.items():
        host[name][:count] = np.where(warm, values, off)[draws.rule]


def _write_edits(host: dict[str, np.ndarray], edits: Mapping[int, TokenEdits]) -> None:
    indptr = host["edit_indptr"]
    indptr[:] = 0
    for draw, edit in edits.items():
        indptr[draw + 1] = len(edit.token)
    np.cumsum(indptr, out=indptr)
    for draw, edit in edits.items():
        for name in ("token", "scale", "minus", "plus"):
            host[f"edit_{name}"][indptr[draw] : indptr[draw + 1]] = getattr(edit, name)


def _write_masks(
    host: dict[str, np.ndarray],
    rows: Sequence[SampleRow],
    masks: Mapping[int, np.ndarray],
    num_words: int,
) -> None:
    """Write each mask once; `masks` are the rows' by identity, as siblings share theirs."""
    place = {key: at for at, key in enumerate(masks)}
    host["mask_row"][: len(rows)] = [place.get(id(row.mask), NO_ROW) for row in rows]
    host["mask_row"][len(rows) :] = NO_ROW
    for at, mask in enumerate(masks.values()):
        host["mask"][at * num_words : (at + 1) * num_words] = mask
