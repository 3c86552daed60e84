"""Modules of presets, on the meta device: shapes and dtypes without a byte of weights."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ramify.core.errors import ConfigError, InputError, expected_got
from ramify.profile.presets.random import generator

LIBRARIES = {"diffusers": "pip install 'ramify[profile]'", "transformers": "pip install ramify"}


def build_module(class_path: str, config: dict[str, Any], dtype: torch.dtype) -> torch.nn.Module:
    """A module from its class and config, for inference.

    Args:
        class_path: `library.Class` of diffusers or transformers, or any importable path.
        config: what the library's config.json holds.
    Raises:
        InputError: the library is not installed, or has no such class.
        ConfigError: the class does not take the config.
    """
    cls = find_class(class_path)
    try:
        with torch.device("meta"), _quiet():
            return _instance(cls, config).to(dtype).eval()
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(expected_got(f"config of {class_path}", "its fields", error)) from error


def fill_weights(module: torch.nn.Module, device: str) -> torch.nn.Module:
    """Give a module of the meta device small random weights on a device."""
    filled = module.to_empty(device=device)
    with torch.no_grad():
        for tensor in (*filled.parameters(), *filled.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(std=0.02, generator=generator(str(tensor.device)))
            else:
                tensor.zero_()
    return filled


def find_class(class_path: str) -> Any:
    """The class of a path. Raises InputError where it cannot be imported, saying what to do."""
    library, _, name = class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(library), name)
    except (ImportError, AttributeError) as error:
        root = library.partition(".")[0]
        hint = LIBRARIES.get(root, "check the path")
        raise InputError(expected_got("class", f"{class_path} ({hint})", error)) from error


def _instance(cls: Any, config: dict[str, Any]) -> torch.nn.Module:
    public = {key: value for key, value in config.items() if not key.startswith("_")}
    if (config_class := getattr(cls, "config_class", None)) is not None:  # transformers
        return cls._from_config(config_class(**public), attn_implementation="sdpa")
    return cls(**public)


@contextmanager
def _quiet() -> Iterator[None]:
    """No word on dtypes of modules that have no weights: nothing here is ever computed."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
