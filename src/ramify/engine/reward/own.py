"""A value head beside the model's own: it reads the state behind a path, whose KV is there.

To value a path takes a row for each token of the suffix, or one probe of its last token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from ramify.engine.live import LiveTrees
from ramify.engine.request import Force, Task, cursor_of
from ramify.engine.reward.valuer import refuse
from ramify.models.reward_head import RewardHead
from ramify.search.controller import Score, Tokens


class OwnHead:
    """See Valuer. A `suffix` stands behind every path that is valued."""

    def __init__(self, head: RewardHead, suffix: Tokens = ()) -> None:
        self.head = head
        self._suffix = suffix

    def ask(self, live: LiveTrees, task: Force) -> None:
        """See Valuer."""
        assert isinstance(task.action, Score), "a value is asked for by a Score"
        encode = live.codec.encode
        tokens = (*encode(task.action.suffix), *encode(self._suffix))
        length = task.request.tree.path_length(task.node)
        limit = live.limits.max_context
        if length + len(tokens) > limit:
            refuse(
                task, f"a path of {length} + {len(tokens)} tokens exceeds the context of {limit}"
            )
        else:
            live.add_task(replace(task, tokens=tokens))

    def values(
        self, hidden: Tensor | None, ready: Sequence[tuple[Task, Mapping[int, int], bool]]
    ) -> dict[int, float]:
        """What the paths of a step's tasks are worth, by task.

        Args:
            hidden: [n, hidden], behind the step's logits.
            ready: see Recorder.record.
        """
        rows = {
            task.id: wanted[cursor_of(task).length - 1]
            for task, wanted, is_complete in ready
            if is_complete and isinstance(task, Force) and task.is_valuation
        }
        if not rows:
            return {}
        assert hidden is not None, "an engine with a head keeps hidden states"
        found = self.head.values(hidden[list(rows.values())]).tolist()
        return dict(zip(rows, found, strict=True))
