"""`ramify show`: an exported tree in the terminal, and as a page to open in a browser."""

from __future__ import annotations

from rich.text import Text

from ramify.cli.cost import mib, usage_document, usage_line
from ramify.cli.options import ShowOptions
from ramify.cli.output import Output
from ramify.cli.tree_text import LEGEND, draw_tree, twigs_of_nodes
from ramify.core.errors import InputError, expected_got
from ramify.export import ExportedTree, load_tree, save_tree


def execute(options: ShowOptions, out: Output) -> int:
    """Read, draw, write. Raises InputError for a file that holds no tree."""
    if options.height < 3:
        raise InputError(expected_got("height", "at least 3 lines", options.height))
    tree = load_tree(options.tree)
    if options.output is not None:
        save_tree(tree, options.output)
    out.say(Text(LEGEND, style="dim"))
    out.say(draw_tree(twigs_of_nodes(tree.nodes, tree.outputs), height=options.height))
    out.say(Text(_sizes(tree)))
    out.say(Text("cost:    ", style="bold") + Text(usage_line(tree.usage)))
    if options.output is not None:
        out.say(f"written: {options.output}")
    out.document(
        {
            "model": tree.model,
            "nodes": len(tree.nodes),
            "branches": tree.nodes[0].num_branches,
            "stored_tokens": tree.stored_tokens,
            "branch_tokens": tree.branch_tokens,
            "outputs": tree.outputs,
            "stats": tree.stats,
            "usage": usage_document(tree.usage),
            "output": None if options.output is None else str(options.output),
        }
    )
    return 0


def _sizes(tree: ExportedTree) -> str:
    """How large the tree is, and what sharing its KV saved."""
    stored, alone = (
        mib(tokens * tree.kv_bytes_per_token) for tokens in (tree.stored_tokens, tree.branch_tokens)
    )
    return (
        f"{tree.model}: {len(tree.nodes)} nodes, {tree.nodes[0].num_branches} branches; "
        f"KV stored once {stored}, branch by branch {alone}"
    )
