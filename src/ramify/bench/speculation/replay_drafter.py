"""A drafter that is right as often as a recording says, and drafts trees of its structure.

It knows the tokens that will be drawn. Of a draft's deepest path the first ones are those, as many
as the recorded step accepted besides the one that every step draws itself; all else is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ramify import LLM
from ramify.core.errors import InputError, expected_got
from ramify.core.speculative import SpeculativeConfig
from ramify.engine.speculation.draft import DraftContext, DraftTree


class ReplayDrafter:
    """Drafts for one branch.

    Args:
        parent: the structure, as `RecordedDrafts` has it: place 0 is the branch's tip.
        accepted: tokens that step after step brings, repeated from the start; at least 1 each.
        path: the tokens to come, the prompt before them.
        vocab_size: wrong tokens are below it.
    Raises:
        InputError: a step that brings more tokens than the deepest path has.
    """

    def __init__(
        self,
        parent: Sequence[int],
        accepted: Sequence[int],
        path: Sequence[int],
        vocab_size: int,
    ) -> None:
        deepest, moved = deepest_first(parent)
        if max(accepted) > len(deepest):
            wanted = f"at most {len(deepest)} tokens a step, the deepest path"
            raise InputError(expected_got("accepted", wanted, max(accepted)))
        # the tip is the branch's own; what hangs from it hangs from the draft's root
        self._parents = tuple(above - 1 for above in moved[1:])
        self._depth = DraftTree(self._parents, self._parents).shape.depth
        # siblings differ by their places; none but the right ones are what will be drawn
        self._wrong = 1 + np.arange(len(self._parents)) % (vocab_size - 1)
        self._accepted, self._path, self._vocab_size = accepted, np.array(path), vocab_size
        self.num_drafts = 0

    def propose(self, contexts: Sequence[DraftContext]) -> list[DraftTree]:
        """See Drafter. Where the path's end is near, the draft is empty."""
        assert len(contexts) == 1, "a recording is of one branch"
        end = len(contexts[0].token_ids)
        if end + self._depth.max() > len(self._path):
            return [DraftTree()]
        right = self._accepted[self.num_drafts % len(self._accepted)] - 1
        self.num_drafts += 1
        off = np.where(np.arange(len(self._wrong)) < right, 0, self._wrong)
        tokens = (self._path[end - 1 + self._depth] + off) % self._vocab_size
        return [DraftTree(tuple(tokens.tolist()), self._parents)]

    def learn(self, token_ids: Sequence[int]) -> None:
        """A recording learns nothing."""


def replay(llm: LLM, parent: Sequence[int], accepted: Sequence[int], path: Sequence[int]) -> None:
    """Have drafts of a structure verified from now on; see ReplayDrafter for the arguments."""
    drafter = ReplayDrafter(parent, accepted, path, llm.engine.live.codec.vocab_size)
    config = SpeculativeConfig(
        method="custom",
        drafter=drafter,
        num_speculative_tokens=len(parent) - 1,
        adaptive=False,
    )
    llm.engine.speculate(drafter, config)


def deepest_first(parent: Sequence[int]) -> tuple[list[int], tuple[int, ...]]:
    """The same tree with its deepest path at places 0, 1, ...: that path, and the new parents.

    A path whose tokens are computed and stored one behind the other stays contiguous in the cache.
    """
    depth: list[int] = []
    for above in parent:
        depth.append(0 if above < 0 else depth[above] + 1)
    path = [depth.index(max(depth))]
    while parent[path[0]] >= 0:
        path.insert(0, parent[path[0]])
    order = path + [place for place in range(len(parent)) if place not in path]
    moved = {place: index for index, place in enumerate(order)}
    return path, tuple(-1 if parent[place] < 0 else moved[parent[place]] for place in order)
