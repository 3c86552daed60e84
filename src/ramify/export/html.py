"""An exported tree as one page of HTML: it opens from a file and loads nothing from elsewhere.

The document travels inside the page as JSON and enters it as text only, so whatever a prompt or a
model wrote stays what it is.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files

import msgspec

from ramify.export.document import ExportedTree

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
SCRIPTS = ("rows.js", "details.js", "controls.js")
TITLE_LENGTH = 60  # characters of the prompt

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title} <span>{model}</span></h1>
<dl class="numbers" id="numbers"></dl>
</header>
<div class="tools">
<button id="best">Best path</button>
<button id="expand">Expand all</button>
<button id="collapse">Collapse all</button>
<label><input type="checkbox" id="alive"> hide what was cut</label>
<input type="search" id="search" placeholder="Find text or #node, then Enter" size="28">
<span id="found"></span>
</div>
<main>
<section>
<div class="row head"><div>node</div><div class="num">score</div><div class="num">tokens</div>
<div class="num" title="branches that a node's KV is stored once for">KV shared</div></div>
<div id="rows" role="tree"></div>
</section>
<aside id="panel"></aside>
</main>
<noscript>This page draws its tree with a script, all of which it holds itself.</noscript>
<script type="application/json" id="document">{document}</script>
<script>{script}</script>
</body>
</html>
"""


def tree_page(tree: ExportedTree) -> str:
    """The page as text."""
    return PAGE.format(
        policy=POLICY,
        title=escape(_title(tree.nodes[0].text)),
        model=escape(tree.model),
        style=_asset("tree.css"),
        document=inert_json(msgspec.json.encode(tree).decode()),
        script="\n".join(map(_asset, SCRIPTS)),
    )


def inert_json(text: str) -> str:
    """JSON that no HTML parser takes for anything else: its angle brackets become escapes."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return (files("ramify.export") / "assets" / name).read_text(encoding="utf-8")


def _title(prompt: str) -> str:
    words = " ".join(prompt.split())
    short = words if len(words) <= TITLE_LENGTH else words[: TITLE_LENGTH - 1] + "…"
    return short or "A tree"
