"""Trees that outlive the engine: a versioned JSON document, and a page that shows it offline."""

from __future__ import annotations

from ramify.export.document import ExportedNode, ExportedTree, make_tree
from ramify.export.files import load_tree, read_tree, save_tree, tree_json
from ramify.export.html import tree_page

__all__ = [
    "ExportedNode",
    "ExportedTree",
    "load_tree",
    "make_tree",
    "read_tree",
    "save_tree",
    "tree_json",
    "tree_page",
]
