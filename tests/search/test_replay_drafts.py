"""Replayed drafts: rows and live tokens per step as recorded, the model's tokens in between."""

from __future__ import annotations

import pytest

from ramify.core.errors import InputError
from ramify.search.controller import AppendTree
from ramify.search.drafts import RecordedDrafts
from ramify.search.replay_drafts import ReplayDrafts
from ramify.search.tree import NodeState
from ramify.testing.scripted import ScriptedModel, ScriptedRun, run_controller

# token 0 has the children 1 and 2; 3 and 4 hang below 2, 5 below 4: the deepest path is 0 2 4 5
DRAFTS = RecordedDrafts(parent=(-1, 0, 0, 2, 2, 4), accepted=((2, 4, 1), (1,)))
PROMPT = (5, 6, 7)


def counting(path: tuple[int, ...]) -> dict[int, float]:
    """The token after a path of n tokens is n."""
    return {len(path) % 50: 0.0}


MODEL = ScriptedModel(next_logprobs=counting, vocab=["x"] * 50)


def replayed(generate: int, record: int = 0) -> ScriptedRun:
    controller = ReplayDrafts(DRAFTS, generate=generate, vocab_size=50, record=record)
    return run_controller(MODEL, controller, PROMPT)


def test_every_step_verifies_a_draft_below_what_was_accepted() -> None:
    run = replayed(9)  # 2 + 4 + 1 + 2 tokens
    contexts = DRAFTS.contexts(0, len(PROMPT), 9)
    assert contexts == [3, 5, 9, 10]
    found = [(step.rows, step.live_tokens) for step in run.steps]
    assert found == [(1, 3)] + [(6, context + 6) for context in contexts]


def test_the_model_continues_what_was_accepted() -> None:
    run = replayed(9)
    (tip,) = run.finish.outputs
    # token 0 of a draft is the model's, here the length of its path; the places on the deepest
    # path are 0 to 3, whose made-up tokens count on from there
    assert run.tree.completion_ids(tip) == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    kept = {node.id for node in run.tree.path(tip)}
    others = [node.state for node in run.tree if node.id not in kept]
    assert len(others) == 4 * 6 - 9 and set(others) == {NodeState.PRUNED}


def test_a_draft_keeps_the_structure_with_its_deepest_path_first() -> None:
    draft = next(action for action in replayed(1).actions if isinstance(action, AppendTree))
    assert draft.parent == (-1, 0, 1, 2, 0, 1) and draft.ask == (1,)


@pytest.mark.parametrize(
    ("record", "accepted", "says"),
    [(1, (9,), "at most 4 accepted a step"), (2, (1,), "record: expected below 2")],
)
def test_records_that_cannot_be_replayed(record, accepted, says) -> None:
    drafts = RecordedDrafts(parent=DRAFTS.parent, accepted=((1,), accepted))
    with pytest.raises(InputError, match=says):
        ReplayDrafts(drafts, generate=4, vocab_size=50, record=record)
