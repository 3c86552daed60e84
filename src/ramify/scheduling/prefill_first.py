"""Prefill first: new prompts before decoding, whole steps of either kind.

Lowest time to the first token and the fullest decode batches, at the price of decode stalls while
a prompt is computed. Source: the first vLLM scheduler (Kwon et al., SOSP 2023); the stalls are
measured in SARATHI (Agrawal et al., 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

from ramify.scheduling.fcfs import admit, chunk, make_room, slots_needed
from ramify.scheduling.policy import Decision, View, Work


@dataclass(frozen=True, kw_only=True)
class PrefillFirstPolicy:
    """`max_rows` bounds the rows of a prefill step."""

    max_rows: int = 2048

    def decide(self, view: View) -> Decision:
        """A step of prompts if any can run, else a step of decodes."""
        running, preempt, free = make_room(view)
        prefills = [task for task in running if not task.is_decode]
        decodes = [task for task in running if task.is_decode]
        items, room, left = chunk(prefills, self.max_rows, free - slots_needed(decodes))
        if not preempt:
            owed = sum(task.pending for task in prefills) - sum(rows for _, rows in items)
            items += admit(view.waiting, room, left - owed)
        if not items:
            items = [(task.id, 1) for task in decodes]
        works = (Work(items=items),) if items else ()
        return Decision(works=works, preempt=preempt, reason=f"{len(items)} tasks")
