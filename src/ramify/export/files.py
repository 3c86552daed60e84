"""Exported trees as files: JSON that is read back as it was written, or a page to look at."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ramify.core.errors import InputError, expected_got
from ramify.export.document import FORMAT, VERSION, ExportedTree
from ramify.export.html import tree_page

PAGE_SUFFIXES = (".html", ".htm")


class _Head(msgspec.Struct):
    """What says whether the rest can be read."""

    format: str = ""
    version: int = 0


def save_tree(tree: ExportedTree, path: str | Path) -> None:
    """Write the page if the name ends in .html or .htm, else the JSON document."""
    path = Path(path)
    is_page = path.suffix.lower() in PAGE_SUFFIXES
    try:
        path.write_text(tree_page(tree) if is_page else tree_json(tree), encoding="utf-8")
    except OSError as error:
        raise InputError(expected_got(str(path), "a writable file", error.strerror)) from error


def load_tree(path: str | Path) -> ExportedTree:
    """Read a document that `save_tree` wrote.

    Raises InputError: the file cannot be read, or `read_tree` finds something wrong in it.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(expected_got(str(path), "a readable file", error.strerror)) from error
    return read_tree(content, name=str(path))


def tree_json(tree: ExportedTree) -> str:
    """The document as JSON; `read_tree` makes an equal tree of it."""
    return msgspec.json.format(msgspec.json.encode(tree), indent=1).decode()


def read_tree(content: str | bytes, *, name: str = "tree") -> ExportedTree:
    """A tree from its JSON.

    Raises:
        InputError: no JSON, another format or version, or a field that is missing, unknown, of
            another type, or at odds with the others; `name` and the field are named.
    """
    try:
        head = msgspec.json.decode(content, type=_Head)
        if (head.format, head.version) != (FORMAT, VERSION):
            wanted = f"format {FORMAT} of version {VERSION}"
            got = f"format {head.format or 'unknown'} of version {head.version}"
            raise InputError(expected_got(name, wanted, got))
        tree = msgspec.json.decode(content, type=ExportedTree)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(expected_got(name, "a tree that was exported", error)) from error
    _check(tree, name)
    return tree


def _check(tree: ExportedTree, name: str) -> None:
    """Raise InputError unless the nodes make a tree and their columns are of equal length."""
    seen: set[int | None] = set()
    for place, node in enumerate(tree.nodes):
        where = f"{name}, node {node.id}"
        if node.id in seen or (place > 0) != (node.parent in seen):
            raise InputError(expected_got(where, "a new id below an earlier node", node.parent))
        if node.forked_from is not None and node.forked_from not in seen:
            raise InputError(expected_got(f"{where}: forked_from", "an earlier node", "none"))
        seen.add(node.id)
        count = len(node.token_ids)
        if len(node.token_texts) not in (0, count):
            raise InputError(expected_got(f"{where}: texts", count, len(node.token_texts)))
        if node.token_logprobs is not None and len(node.token_logprobs) != count:
            raise InputError(expected_got(f"{where}: logprobs", count, len(node.token_logprobs)))
    if not tree.nodes or tree.nodes[0].parent is not None:
        raise InputError(expected_got(name, "a root first", "none"))
    if strange := set(tree.outputs) - seen:
        raise InputError(expected_got(f"{name}: outputs", "ids of its nodes", sorted(strange)))
