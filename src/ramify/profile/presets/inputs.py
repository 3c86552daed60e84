"""Inputs of components, on the meta device or of random content, from shapes as expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ramify.core.errors import ConfigError, expected_got
from ramify.profile.presets.expressions import evaluate
from ramify.profile.presets.random import generator

MAX_ID = 100
"""Token ids stay below, so that every vocabulary has them."""


def make_inputs(
    specs: Mapping[str, Any],
    names: Mapping[str, Any],
    module: torch.nn.Module,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Keyword arguments of a call.

    Args:
        specs: by name, each a list of sizes; an object with `shape` and `dtype`; `{"tuple": [..]}`
            of specs; `{"kv_cache": tokens}`, with `context` for the keys of an encoder; or an
            object of specs.
        names: see `evaluate`.
        module: the inputs go where its weights are, and a KV cache follows its config.
    Raises:
        ConfigError: a shape that cannot be evaluated.
    """
    return {name: _value(spec, names, module, dtype) for name, spec in specs.items()}


def _value(spec: Any, names: Mapping[str, Any], module: torch.nn.Module, dtype: torch.dtype) -> Any:
    if isinstance(spec, list):
        return _tensor(spec, names, dtype, _device(module))
    if "shape" in spec:
        return _tensor(spec["shape"], names, _dtype(spec["dtype"]), _device(module))
    if "tuple" in spec:
        return tuple(_value(part, names, module, dtype) for part in spec["tuple"])
    if "kv_cache" in spec:
        return _kv_cache(spec, names, module, dtype)
    return make_inputs(spec, names, module, dtype)


def _tensor(
    shape: list[int | str], names: Mapping[str, Any], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    return _filled([evaluate(size, names) for size in shape], dtype, device)


def _filled(sizes: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Noise, small token ids or ones, by dtype."""
    if device.type == "meta":
        return torch.empty(sizes, dtype=dtype, device=device)
    if dtype is torch.bool:
        return torch.ones(sizes, dtype=dtype, device=device)
    numbers = generator(str(device))
    if dtype.is_floating_point:
        return torch.randn(sizes, dtype=dtype, device=device, generator=numbers)
    return torch.randint(MAX_ID, sizes, dtype=dtype, device=device, generator=numbers)


def _device(module: torch.nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ConfigError(expected_got("dtype", "a dtype of torch", repr(name)))
    return dtype


def _kv_cache(
    spec: dict[str, Any], names: Mapping[str, Any], module: Any, dtype: torch.dtype
) -> Any:
    """A cache of transformers that already holds so many tokens in every layer."""
    from transformers import EncoderDecoderCache

    own = _kv_of(evaluate(spec["kv_cache"], names), names, module, dtype)
    if "context" not in spec:
        return own
    context = evaluate(spec["context"], names)
    cache = EncoderDecoderCache(own, _kv_of(context, names, module, dtype))
    cache.is_updated = dict.fromkeys(range(_num_layers(module.config)), True)
    return cache


def _kv_of(num_tokens: int, names: Mapping[str, Any], module: Any, dtype: torch.dtype) -> Any:
    from transformers import DynamicCache

    cache, config = DynamicCache(), module.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "d_kv", None) or config.hidden_size // config.num_attention_heads
    shape = (evaluate("batch", names), heads, num_tokens, head_dim)
    for layer in range(_num_layers(config)):
        keys, values = (_filled(shape, dtype, _device(module)) for _ in range(2))
        cache.update(keys, values, layer)
    return cache


def _num_layers(config: Any) -> int:
    return int(getattr(config, "num_decoder_layers", None) or config.num_hidden_layers)
