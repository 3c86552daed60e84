"""The bundled model `ramify-tiny`: where it lives, and the problems that come with it.

Importing this room needs neither torch nor transformers; the tasks are in `ramify.zoo.tasks`.
"""

from __future__ import annotations

from pathlib import Path

from ramify.core.errors import InputError, expected_got

__all__ = ["MODELS", "PROBLEMS", "bundled_model_dir"]

_HERE = Path(__file__).parent

MODELS = ("ramify-tiny",)

PROBLEMS: dict[str, Path] = {
    "puzzle": _HERE / "problems" / "puzzles.jsonl",
    "sort": _HERE / "problems" / "sort.jsonl",
    "documents": _HERE / "problems" / "documents.jsonl",
}
"""Held-out problems of each family, as JSON lines."""


def bundled_model_dir(name: str = "ramify-tiny") -> Path:
    """The Hugging Face directory of a bundled model; InputError lists the names there are."""
    if name not in MODELS:
        raise InputError(expected_got("model", f"one of {', '.join(MODELS)}", repr(name)))
    return _HERE / name
