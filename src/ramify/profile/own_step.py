"""Ramify's own decode step as one more model of the suite, by closed forms and as measured.

A step has one row per branch. Its products read every weight once, its attention each live token
once, however many branches see it (arXiv 2404.00242); written out, attention has a similarity
matrix of a row and its whole path.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median

import torch

from ramify.models.config import ModelConfig
from ramify.profile.hardware import Hardware
from ramify.profile.measured import KindTime, Measured
from ramify.profile.operators import kinds
from ramify.profile.operators.record import AttentionShape, OpRecord
from ramify.profile.report import (
    SCHEMA_VERSION,
    ComponentReport,
    Report,
    attention_calls,
    group_records,
)
from ramify.profile.shape import DecodeShape
from ramify.profile.step import StepProfile

NAME = "ramify_step"
STEP_NAME = "decode step"
NEW_TOKENS = 64
"""Tokens of its own that every branch has in the step that is counted."""

KIND_OF_GROUP = {"attention": kinds.DECODE, "merge": kinds.DECODE}
"""Kinds of the groups of `profile.groups`; products are linear, the rest is per element."""


def step_report(config: ModelConfig, model: str, shape: DecodeShape, machine: Hardware) -> Report:
    """One step of a shape, after every branch has made some tokens.

    Args:
        config: of the model; counted in its own dtype.
        model: what the report calls it.
    """
    records = [*_layers(config, shape), *_head(config, shape)]
    part = ComponentReport(
        name=STEP_NAME,
        class_name=config.architecture,
        num_params=_num_params(config),
        calls=1,
        batch=shape.num_rows,
        groups=group_records(records, machine),
        attention=attention_calls(records, machine),
    )
    return Report(
        schema_version=SCHEMA_VERSION,
        name=NAME,
        title=f"a decode step of Ramify, {model}",
        stands_for="Ramify",
        source="closed forms of its own step",
        sizes={
            "prompt_tokens": shape.prompt_tokens,
            "branches": shape.branches,
            "trees": shape.trees,
            "new_tokens": NEW_TOKENS,
        },
        batch=shape.num_rows,
        steps=1,
        guidance=False,
        hardware=machine,
        components=(part,),
    )


def measured_step(profiles: Sequence[StepProfile], device: str) -> Measured:
    """Several profiles of one shape as one measurement."""
    walls = [profile.step_us * 1e-6 for profile in profiles]
    by_kind: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(profiles))
    for index, profile in enumerate(profiles):
        for group in profile.groups:
            by_kind[_kind(group.group)][index] += group.us * 1e-6
    on_gpu = device.startswith("cuda")
    idle = median(profile.idle_share for profile in profiles)
    # a CPU, which is host and device, pauses for nobody
    pause = min(idle, median(profile.pause_share for profile in profiles)) if on_gpu else 0.0
    times = tuple(
        KindTime(kind=kind, seconds=median(by_kind[kind]), low_s=min(by_kind[kind]),
                 high_s=max(by_kind[kind]))
        for kind in kinds.KINDS
        if kind in by_kind
    )  # fmt: skip
    return Measured(
        device=device,
        attention="flash",
        run="graphs" if on_gpu else "eager",
        repeats=len(profiles),
        wall_s=median(walls),
        wall_low_s=min(walls),
        wall_high_s=max(walls),
        traced_s=median(profile.traced_step_us for profile in profiles) * 1e-6,
        busy_share=1 - idle,
        gap_share=pause,
        waiting_share=idle - pause if on_gpu else 0.0,
        kinds=times,
    )


def _kind(group: str) -> str:
    if group == "products" or group.endswith(" product"):
        return kinds.LINEAR
    return KIND_OF_GROUP.get(group, kinds.ELEMENTWISE)


def _layers(config: ModelConfig, shape: DecodeShape) -> Iterator[OpRecord]:
    rows, hidden = shape.num_rows, config.hidden_size
    q_width, kv_width = (heads * config.head_dim for heads in _heads(config))
    for layer in range(config.num_layers):
        module = f"{STEP_NAME}.layers.{layer}"
        yield _pointwise(config, kinds.NORM, "norm", module, (rows, hidden))
        yield _product(config, module, rows, hidden, q_width + 2 * kv_width)
        yield _pointwise(config, kinds.ELEMENTWISE, "rope", module, (rows, q_width + kv_width))
        yield _attention(config, shape, module)
        yield _product(config, module, rows, q_width, hidden)
        yield _pointwise(config, kinds.NORM, "norm", module, (rows, hidden))
        yield _product(config, module, rows, hidden, 2 * config.intermediate_size)
        yield _pointwise(
            config, kinds.ELEMENTWISE, "gate", module, (rows, config.intermediate_size)
        )
        yield _product(config, module, rows, config.intermediate_size, hidden)


def _head(config: ModelConfig, shape: DecodeShape) -> Iterator[OpRecord]:
    rows, hidden = shape.num_rows, config.hidden_size
    yield _pointwise(config, kinds.EMBEDDING, "embedding", STEP_NAME, (rows, hidden))
    yield _pointwise(config, kinds.NORM, "norm", STEP_NAME, (rows, hidden))
    yield _product(config, STEP_NAME, rows, hidden, config.vocab_size)


def _heads(config: ModelConfig) -> tuple[int, int]:
    return config.num_q_heads, config.num_kv_heads


def _product(config: ModelConfig, module: str, rows: int, width: int, out: int) -> OpRecord:
    moved = rows * width + width * out + rows * out
    return OpRecord(
        op="ramify.product",
        kind=kinds.LINEAR,
        module=module,
        dtype=_dtype(config),
        shapes=((rows, width), (width, out)),
        flops=2 * rows * width * out,
        bytes_moved=moved * _itemsize(config),
    )


def _pointwise(
    config: ModelConfig, kind: str, op: str, module: str, shape: tuple[int, int]
) -> OpRecord:
    """Reads and writes as many elements."""
    return OpRecord(
        op=f"ramify.{op}",
        kind=kind,
        module=module,
        dtype=_dtype(config),
        shapes=(shape,),
        flops=0,
        bytes_moved=2 * shape[0] * shape[1] * _itemsize(config),
    )


def _attention(config: ModelConfig, shape: DecodeShape, module: str) -> OpRecord:
    """Every live token once for all the branches that see it, and q and out of each row."""
    q_heads, kv_heads = _heads(config)
    rows, path = shape.num_rows, shape.prompt_tokens + NEW_TOKENS
    live = shape.unique_tokens(NEW_TOKENS)
    attention = AttentionShape(
        batch=rows,
        heads=q_heads,
        q_len=1,
        kv_len=path,
        head_dim=config.head_dim,
        value_dim=config.head_dim,
        is_causal=False,
        kv_source="self",
        itemsize=_itemsize(config),
    )
    moved = 2 * config.head_dim * (live * kv_heads + rows * q_heads)
    return OpRecord(
        op="ramify.tree_attention",
        kind=kinds.DECODE,
        module=module,
        dtype=_dtype(config),
        shapes=((rows, q_heads, config.head_dim), *[(live, kv_heads, config.head_dim)] * 2),
        flops=attention.flops,
        bytes_moved=moved * _itemsize(config),
        attention=attention,
    )


def _num_params(config: ModelConfig) -> int:
    """Weights of layers, norms, embedding and head; a tied head is the embedding."""
    q_width, kv_width = (heads * config.head_dim for heads in _heads(config))
    attention = config.hidden_size * (2 * q_width + 2 * kv_width)
    layer = attention + 3 * config.hidden_size * config.intermediate_size + 2 * config.hidden_size
    tables = (1 if config.is_tied else 2) * config.vocab_size * config.hidden_size
    return config.num_layers * layer + tables + config.hidden_size


def _dtype(config: ModelConfig) -> str:
    return config.dtype or "bfloat16"


def _itemsize(config: ModelConfig) -> int:
    return torch.empty((), dtype=getattr(torch, _dtype(config))).element_size()
