"""Of a draft, a grammar leaves the tokens that spell the beginning of a legal text."""

from __future__ import annotations

import random

from ramify import StructuredOutput
from ramify.engine.codec import Codec
from ramify.engine.speculation.draft import ROOT, DraftTree
from ramify.engine.structured.compile import Grammars
from ramify.engine.structured.draft import legal_part

EOS = 2


def test_random_trees_are_cut_to_their_legal_paths(codec: Codec, grammars: Grammars) -> None:
    words = ["abc", "abd", "a", "bc", "abcab", "ab" * 9]
    letters = [codec.encode(letter)[0] for letter in "abcdx"]
    rng, num_kept, num_cut = random.Random(0), 0, 0
    for _ in range(200):
        size = rng.randint(0, 14)
        tokens = tuple(rng.choice([*letters, EOS]) for _ in range(size))
        parents = tuple(rng.randrange(-1, i) for i in range(size))
        tree = DraftTree(tokens, parents).checked(512, 14, 14)
        tip = grammars.start(StructuredOutput(choices=words))
        found = legal_part(tree, tip, (EOS,))
        assert paths(found) == [path for path in paths(tree) if is_legal(codec, path, words)]
        num_kept += len(found.tokens)
        num_cut += len(tree.tokens) - len(found.tokens)
    assert num_kept > 150 and num_cut > 150


def paths(tree: DraftTree) -> list[tuple[int, ...]]:
    """The tokens from the branch down to each token."""
    found: list[tuple[int, ...]] = []
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        found.append((*(() if parent == ROOT else found[parent]), token))
    return found


def is_legal(codec: Codec, path: tuple[int, ...], words: list[str]) -> bool:
    if path[-1] == EOS:
        return codec.decode(path[:-1]) in words and is_open(codec, path[:-1], words)
    return EOS not in path and any(word.startswith(codec.decode(path)) for word in words)


def is_open(codec: Codec, path: tuple[int, ...], words: list[str]) -> bool:
    """Behind a text that nothing may follow, the branch is over: no end is drafted there."""
    text = codec.decode(path)
    return any(word != text and word.startswith(text) for word in words)
