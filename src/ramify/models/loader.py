"""From a name or a directory to a running decoder and its tokenizer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args

import huggingface_hub
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ramify.core.errors import ConfigError, expected_got
from ramify.models.config import DTYPE_NAMES, ModelConfig, read_config
from ramify.models.decoder import Decoder
from ramify.models.shard import WHOLE, Shard
from ramify.models.weights import fill_random, load_weights

LoadFormat = Literal["auto", "safetensors", "dummy"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
HUB_FILES = ["*.json", "*.safetensors", "tokenizer.model", "*.txt", "*.jinja"]


def resolve_model_dir(name_or_path: str | Path) -> Path:
    """A local directory, or the local copy of a hub repository (fetched when it is not cached).

    Raises:
        ConfigError: neither a directory nor a repository that could be reached.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir() and name_or_path != "":
        return path
    if path.is_file():
        raise ConfigError(expected_got("model", "a directory or a hub id", f"the file {path}"))
    if not HUB_ID.fullmatch(str(name_or_path)):
        got = repr(str(name_or_path))
        raise ConfigError(expected_got("model", "an existing directory or a hub id", got))
    try:
        return Path(huggingface_hub.snapshot_download(str(name_or_path), allow_patterns=HUB_FILES))
    except Exception as error:  # errors of the hub, of its HTTP library and of the file system
        reason = str(error).partition("\n")[0]
        got = f"{str(name_or_path)!r}, which is no directory and could not be fetched: {reason}"
        raise ConfigError(expected_got("model", "a local directory or a hub id", got)) from error


def load_model(
    path: str | Path,
    *,
    dtype: torch.dtype | str = "auto",
    device: torch.device | str = "cpu",
    load_format: LoadFormat = "auto",
    seed: int = 0,
    shard: Shard = WHOLE,
    has_head: bool = True,
) -> Decoder:
    """Build the decoder of a Hugging Face directory, ready to run.

    Args:
        path: directory with config.json and, unless `load_format` is "dummy", safetensors files.
        dtype: a torch dtype or its name; "auto" is float32 on a CPU, else the one saved in.
        device: where weights and tables live.
        load_format: "auto" and "safetensors" read the files; "dummy" draws random weights.
        seed: of the random weights.
        shard: the part of the model to load.
        has_head: without the model's head; a classifier of a known family will do then too.
    Raises:
        ConfigError: a setting, a field, a file or a tensor is wrong; the message names it.
    """
    if load_format not in get_args(LoadFormat):
        expected = f"one of {', '.join(get_args(LoadFormat))}"
        raise ConfigError(expected_got("load_format", expected, repr(load_format)))
    model_dir = Path(path)
    config = read_config(model_dir, is_backbone=not has_head)
    target = resolve_device(device)
    dtype = resolve_dtype(dtype, config, target)
    decoder = Decoder(config, dtype=dtype, device=target, shard=shard, has_head=has_head)
    if load_format == "dummy":
        fill_random(decoder, seed)
    else:
        load_weights(decoder, model_dir)
    return decoder.eval()


def resolve_device(device: torch.device | str) -> torch.device:
    """Check that a device exists here; raises ConfigError."""
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            expected_got("device", "a device of this machine", f"{device!r} ({reason})")
        ) from error
    return target


def resolve_dtype(
    dtype: torch.dtype | str, config: ModelConfig, device: torch.device
) -> torch.dtype:
    """Make "auto" concrete; raises ConfigError for a dtype the engine does not run in."""
    if dtype == "auto":
        dtype = "float32" if device.type == "cpu" else config.dtype or "bfloat16"
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPE_NAMES:
        raise ConfigError(expected_got("dtype", f"auto or one of {', '.join(DTYPE_NAMES)}", dtype))
    resolved: torch.dtype = getattr(torch, name)
    return resolved


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a model directory, or None where it has no tokenizer files.

    Raises:
        ConfigError: the files are there and cannot be read.
    """
    model_dir = Path(path)
    if not any((model_dir / name).is_file() for name in TOKENIZER_FILES):
        return None
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(model_dir), local_files_only=True)
    except Exception as error:  # the tokenizer library raises bare Exception on a malformed file
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            expected_got(str(model_dir), "readable tokenizer files", reason)
        ) from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase), "AutoTokenizer gave no tokenizer"
    return tokenizer
