"""Where `--export` puts trees: one file each, numbered where there are several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ramify import LLM
from ramify.cli.output import Output
from ramify.core.errors import InputError, expected_got
from ramify.core.outputs import RequestOutput, SearchResult
from ramify.export import save_tree


def check_export(path: Path | None) -> None:
    """Raise InputError, before anything runs, where no file can be written."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise InputError(expected_got("export", "a file in a directory that exists", path))


def export_all(
    llm: LLM, results: Sequence[SearchResult | RequestOutput], path: Path | None, out: Output
) -> None:
    """Write the tree of each result: tree.json, or tree-1.json, tree-2.json and so on."""
    if path is None:
        return
    for place, result in enumerate(results, start=1):
        own = path if len(results) == 1 else path.with_stem(f"{path.stem}-{place}")
        save_tree(llm.export(result), own)
        out.say(f"written: {own}")
