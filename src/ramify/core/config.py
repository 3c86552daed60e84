"""Engine settings: one frozen dataclass, checked when it is made, printed by `ramify info`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ramify.core.errors import ConfigError, expected_got
from ramify.core.reward import RewardConfig, reward_config
from ramify.core.speculative import SpeculativeConfig, speculative_config

ATTENTION_METHODS = ("per_branch", "lean", "node", "node_chunk", "flatten", "fused")
METHODS = ("auto", *ATTENTION_METHODS)
DTYPES = ("auto", "float32", "bfloat16", "float16")
LOAD_FORMATS = ("auto", "safetensors", "dummy")
QUANTIZATIONS = ("none", "fp8")
KV_CACHE_DTYPES = ("auto", "fp8")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How an engine is set up. Raises ConfigError naming the field."""

    model: str = field(
        default="ramify-tiny", metadata={"help": "bundled name, directory or hub id"}
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu or cuda"})
    dtype: str = field(default="auto", metadata={"help": " | ".join(DTYPES)})
    load_format: str = field(default="auto", metadata={"help": " | ".join(LOAD_FORMATS)})
    method: str = field(default="auto", metadata={"help": "attention: " + " | ".join(METHODS)})
    backend: str = field(
        default="auto",
        metadata={"help": "attention backend: auto, hopper, triton, cpu, reference"},
    )
    quantization: str = field(
        default="none",
        metadata={"help": "weights of the layers: none or fp8 (weight-only, on a GPU)"},
    )
    kv_cache_dtype: str = field(
        default="auto", metadata={"help": "auto, the model's, or fp8: half the bytes a token"}
    )
    policy: str = field(default="fcfs", metadata={"help": "scheduling: fcfs or prefill_first"})
    num_slots: int | None = field(
        default=None, metadata={"help": "tokens the KV pool holds; default from kv_gib"}
    )
    kv_gib: float | None = field(
        default=None,
        metadata={"help": "KV pool per device in GiB; default: 1 on a CPU, a GPU's free memory"},
    )
    gpu_memory_utilization: float = field(
        default=0.9, metadata={"help": "share of the GPU's memory that the engine may fill"}
    )
    max_context: int | None = field(
        default=None, metadata={"help": "longest path in tokens; default: the model's"}
    )
    max_rows: int | None = field(
        default=None,
        metadata={"help": "rows a step may hold beside its decodes; default: 512, on a GPU 8192"},
    )
    run_ahead: bool | None = field(
        default=None,
        metadata={"help": "launch decode steps before the last tokens are read; default: on a GPU"},
    )
    tensor_parallel_size: int = field(
        default=1,
        metadata={"help": "devices that share the model; on GPUs, so many from device on"},
    )
    speculative_config: SpeculativeConfig | Mapping[str, Any] | str | None = field(
        default=None,
        metadata={"help": "what drafts ahead: a method, or its fields as JSON; default: nothing"},
    )
    reward_model: RewardConfig | Mapping[str, Any] | str | None = field(
        default=None, metadata={"help": "what values texts: a model, or fields as JSON"}
    )
    cuda_graphs: bool = field(default=True, metadata={"help": "replay small steps as CUDA graphs"})
    prefix_cache: bool = field(default=True, metadata={"help": "reuse KV across requests"})
    seed: int = field(default=0, metadata={"help": "root seed of requests that give none"})

    def __post_init__(self) -> None:
        for name, allowed in (
            ("method", METHODS),
            ("dtype", DTYPES),
            ("load_format", LOAD_FORMATS),
            ("quantization", QUANTIZATIONS),
            ("kv_cache_dtype", KV_CACHE_DTYPES),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    expected_got(name, f"one of {', '.join(allowed)}", repr(getattr(self, name)))
                )
        for name in ("num_slots", "max_context", "max_rows"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigError(expected_got(name, "an int >= 1", repr(value)))
        # a mapping or JSON becomes what it describes
        drafts = speculative_config(self.speculative_config)
        object.__setattr__(self, "speculative_config", drafts)
        object.__setattr__(self, "reward_model", reward_config(self.reward_model))
        size = self.tensor_parallel_size
        if not isinstance(size, int) or size < 1:
            raise ConfigError(expected_got("tensor_parallel_size", "an int >= 1", repr(size)))
        if self.kv_gib is not None and not 0 < self.kv_gib < 1 << 20:
            raise ConfigError(expected_got("kv_gib", "a number of GiB > 0", repr(self.kv_gib)))
        if not 0 < self.gpu_memory_utilization <= 1:
            got = repr(self.gpu_memory_utilization)
            raise ConfigError(expected_got("gpu_memory_utilization", "a number in (0, 1]", got))
