"""A directory of transformers or diffusers as a preset: its configs say what to build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ramify.core.errors import ConfigError, expected_got
from ramify.profile.presets.preset import ComponentSpec, Preset, component, families

INDEX, CONFIG = "model_index.json", "config.json"
DENOISERS = ("unet", "transformer")
STEPS = 50
DEFAULT_LATENT, DEFAULT_FRAMES = 64, 16
TEXT_TOKENS = 77
PROMPT_TOKENS, NEW_TOKENS = 2048, 512


def load_directory(path: Path) -> Preset:
    """What a directory holds: a pipeline of diffusers, one module of it, or a language model.

    Raises:
        ConfigError: no config, or nothing in it that we know how to call.
    """
    if (path / INDEX).is_file():
        return _diffusion(path, _pipeline(path))
    config = _read(path / CONFIG)
    if "_class_name" in config:
        return _diffusion(path, [_part("denoiser", f"diffusers.{config['_class_name']}", config)])
    return _language(path, config)


def _pipeline(path: Path) -> list[ComponentSpec]:
    """The components of a pipeline that we know how to call; tokenizers and the like are left."""
    parts = []
    for name, entry in _read(path / INDEX).items():
        if isinstance(entry, list) and None not in entry:
            class_path = ".".join(entry)
            if class_path in families():
                parts.append(_part(name, class_path, _read(path / name / CONFIG)))
    return parts


def _part(name: str, class_path: str, config: dict[str, Any]) -> ComponentSpec:
    is_denoiser = name in DENOISERS or name == "denoiser"
    entry: dict[str, Any] = {"name": name, "class": class_path, "config": config}
    if is_denoiser:
        entry |= {"calls": "steps"}
    return component(entry | {"guided": is_denoiser or name.startswith("text_encoder")})


def _diffusion(path: Path, parts: list[ComponentSpec]) -> Preset:
    if not parts or any(part.class_path not in families() for part in parts):
        wanted = "a module among " + ", ".join(families())
        got = ", ".join(part.class_path for part in parts) or "none"
        raise ConfigError(expected_got(str(path), wanted, got))
    sample = next((part.config["sample_size"] for part in parts if _is_sized(part)), DEFAULT_LATENT)
    height, width = sample if isinstance(sample, list) else (sample, sample)
    sizes = {"latent_height": height, "latent_width": width, "text_tokens": TEXT_TOKENS}
    is_video = any("frames" in str(part.inputs) for part in parts)
    return Preset(
        name=path.name,
        title=path.name,
        stands_for="",
        source="its config",
        steps=STEPS,
        guidance=True,
        sizes=sizes | ({"frames": DEFAULT_FRAMES} if is_video else {}),
        components=tuple(parts),
    )


def _is_sized(part: ComponentSpec) -> bool:
    return part.calls == "steps" and part.config.get("sample_size") is not None


def _language(path: Path, config: dict[str, Any]) -> Preset:
    """A causal language model: a prompt is read, then tokens are made one by one."""
    architecture = (config.get("architectures") or [""])[0]
    if not architecture.endswith("ForCausalLM"):
        wanted = "architectures with a ...ForCausalLM, or _class_name of diffusers"
        raise ConfigError(expected_got(str(path / CONFIG), wanted, repr(architecture)))
    ids: dict[str, Any] = {"dtype": "int64"}
    middle = "prompt_tokens+new_tokens/2"  # a cache of average length stands for all
    shared = {"class": f"transformers.{architecture}", "config": config}
    inputs = {"input_ids": {**ids, "shape": ["batch", 1]}, "past_key_values": {"kv_cache": middle}}
    prefill = {"input_ids": {**ids, "shape": ["batch", "prompt_tokens"]}}
    return Preset(
        name=path.name,
        title=path.name,
        stands_for="",
        source="its config",
        steps=1,
        guidance=False,
        sizes={"prompt_tokens": PROMPT_TOKENS, "new_tokens": NEW_TOKENS},
        components=(
            component({"name": "prefill", "inputs": prefill, **shared}),
            component({"name": "decode", "calls": "new_tokens", "inputs": inputs, **shared}),
        ),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(expected_got(str(path), "a config in JSON", error)) from error
