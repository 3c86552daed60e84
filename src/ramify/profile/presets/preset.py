"""What a preset says: components, how often each runs, and the sizes of its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from ramify.core.errors import InputError, expected_got

DATA = files("ramify.profile.presets") / "data"
FAMILIES = "families"


@dataclass(frozen=True, kw_only=True)
class ComponentSpec:
    """One module of a model: what it is built from and how it is called."""

    name: str
    class_path: str
    config: dict[str, Any]
    calls: int | str = 1  # `steps`, or an expression over the sizes
    guided: bool = False  # takes a second half of its batch for classifier-free guidance
    method: str = "forward"
    inputs: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, int | str] = field(default_factory=dict)  # instead of the preset's


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model with the sizes it is usually run at."""

    name: str
    title: str
    stands_for: str
    source: str
    steps: int  # of the denoiser
    guidance: bool
    sizes: dict[str, int | str]  # expressions may name other sizes
    components: tuple[ComponentSpec, ...]


@cache
def preset_names() -> tuple[str, ...]:
    """All presets, in the order of the alphabet."""
    names = (entry.name.removesuffix(".json") for entry in DATA.iterdir())
    return tuple(sorted(name for name in names if name != FAMILIES and "." not in name))


def load_preset(name: str) -> Preset:
    """A preset by name. Raises InputError for one that does not exist."""
    if name not in preset_names():
        near = get_close_matches(name, preset_names(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        wanted = "one of " + ", ".join(preset_names())
        raise InputError(expected_got("preset", wanted, repr(name)) + hint)
    content = _json(name)
    components = tuple(component(entry) for entry in content.pop("components"))
    return Preset(name=name, components=components, **content)


def component(entry: dict[str, Any]) -> ComponentSpec:
    """A component as JSON writes it, completed by what is known of its class."""
    family = families().get(entry["class"], {})
    rest = {key: value for key, value in entry.items() if key not in ("class", "inputs")}
    inputs = {**family.get("inputs", {}), **entry.get("inputs", {})}
    method = {"method": family["method"]} if "method" in family else {}
    return ComponentSpec(class_path=entry["class"], inputs=inputs, **{**method, **rest})


@cache
def families() -> dict[str, Any]:
    """Inputs and method of every class we can call, by its path."""
    return _json(FAMILIES)


def _json(name: str) -> dict[str, Any]:
    return msgspec.json.decode((DATA / f"{name}.json").read_bytes(), type=dict[str, Any])
