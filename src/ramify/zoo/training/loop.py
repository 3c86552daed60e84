"""The training loop: batches in, a trained model and a log out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ramify.zoo.training.model import TinyLlama, block_mask, dense_mask
from ramify.zoo.training.optim import OptimConfig, Optimizer
from ramify.zoo.training.storage import save_model
from ramify.zoo.training.trees import KINDS, NO_LABEL
from ramify.zoo.training.vocab import PAD


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long to train, and how often to speak and to save."""

    num_steps: int
    log_every: int = 100
    save_every: int = 2000


class Log:
    """JSON lines in a file, a readable line on stdout."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = time.monotonic()
        path.write_text("")

    def write(self, event: str, **fields: Any) -> None:
        """Write one event with the seconds since the start."""
        row = {"event": event, "elapsed_s": round(time.monotonic() - self._start, 1)} | fields
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(" ".join(f"{key}={_short(value)}" for key, value in row.items()), flush=True)


def train(
    model: TinyLlama,
    feed: Iterable[NDArray[np.int16]],
    optim: OptimConfig,
    config: LoopConfig,
    log: Log,
    save_dir: Path,
) -> list[float]:
    """Train in place; returns the mean loss of each logged interval."""
    device = next(model.parameters()).device
    on_gpu = device.type == "cuda"
    optimizer = Optimizer(model, optim)
    objective = torch.compile(_objective) if on_gpu else _objective
    precision = torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext()
    total = torch.zeros(len(KINDS), 3, device=device)
    losses, num_tokens, since = [], 0, time.monotonic()
    for step, arrays in enumerate(feed):
        num_tokens += int((arrays[0] != PAD).sum())
        tokens, labels, positions, ends, kinds = _to_device(arrays, device)
        mask = block_mask(ends) if on_gpu else dense_mask(ends)
        with precision:
            loss, stats = objective(model, tokens, labels, positions, kinds, mask)
        loss.backward()
        optimizer.step(optim.scale(step, config.num_steps))
        total += stats
        done = step + 1
        if done % config.log_every == 0 or done == config.num_steps or done in (1, 10, 30):
            rows = total.tolist()
            total.zero_()
            seconds, since = time.monotonic() - since, time.monotonic()
            losses.append(sum(row[0] for row in rows) / max(1, sum(row[2] for row in rows)))
            rate = round(num_tokens / seconds)
            log.write("step", step=done, loss=losses[-1], tok_per_s=rate, **_per_kind(rows))
            num_tokens = 0
        if done % config.save_every == 0:
            save_model(model, save_dir)
    return losses


def describe(net: TinyLlama, **configs: Any) -> dict[str, Any]:
    """What the log opens with: sizes, settings and the machine."""
    device = next(net.parameters()).device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    num_parameters = sum(p.numel() for p in net.parameters())
    settings = {name: asdict(config) for name, config in configs.items()}
    return {"parameters": num_parameters, "device": where, "torch": torch.__version__} | settings


def _objective(
    model: TinyLlama, tokens: Tensor, labels: Tensor, positions: Tensor, kinds: Tensor, mask: Any
) -> tuple[Tensor, Tensor]:
    """Mean loss of the learned tokens, and per kind [kinds, 3]: loss sum, right, count."""
    logits = model(tokens, positions, mask).float()
    each = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="none"
    )
    learned = labels.flatten() != NO_LABEL
    right = (logits.detach().flatten(0, 1).argmax(-1) == labels.flatten()) & learned
    columns = torch.stack([each.detach(), right.float(), learned.float()], dim=1)
    member = F.one_hot(kinds.flatten(), len(KINDS)).float() * learned[:, None]
    return each.sum() / learned.sum(), member.T @ columns


def _to_device(arrays: NDArray[np.int16], device: torch.device) -> tuple[Tensor, ...]:
    """The five fields as int64 on the device."""
    host = torch.from_numpy(arrays)
    if device.type == "cuda":
        host = host.pin_memory()
    return host.to(device, non_blocking=True).long().unbind()


def _per_kind(rows: list[list[float]]) -> dict[str, dict[str, float]]:
    """Loss and share of right tokens of each kind seen."""
    return {
        name: {"loss": round(row[0] / row[2], 4), "accuracy": round(row[1] / row[2], 4)}
        for name, row in zip(KINDS, rows, strict=True)
        if row[2] > 0
    }


def _short(value: Any) -> str:
    """A value for the terminal."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict) and set(value) == {"loss", "accuracy"}:
        return f"{value['loss']:.3f}/{value['accuracy']:.1%}"
    return str(value)
