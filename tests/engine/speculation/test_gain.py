"""When drafting is paused and tried again, with costs and tokens given."""

from __future__ import annotations

from ramify.engine.speculation.gain import FIRST_PAUSE, TRIES, DraftGain, StepCosts


def test_a_branch_whose_drafts_fail_is_left_alone_longer_each_time() -> None:
    gain, tokens, pauses = DraftGain(), 0, []
    for _ in range(3):
        for _ in range(TRIES):
            assert gain.resume_at <= tokens
            tokens += 1
            gain.note(0, 1.0, tokens)
        pauses.append(gain.resume_at - tokens)
        tokens = gain.resume_at
    assert pauses == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]


def test_drafting_goes_on_while_tokens_outweigh_the_cost() -> None:
    pays, loses = DraftGain(), DraftGain()
    for step in range(20):
        pays.note(2, 2.0, 3 * step)
        loses.note(2, 4.0, 3 * step)
    assert pays.resume_at == 0
    assert loses.resume_at > 0


def test_a_change_for_the_worse_is_noticed() -> None:
    gain, tokens = DraftGain(), 0
    for kept in [4] * 50 + [0] * 20:
        tokens += 1 + kept
        gain.note(kept, 1.2, tokens)
    assert gain.resume_at > 250


def test_costs_are_compared_by_rows_without_first_steps_and_interruptions() -> None:
    costs = StepCosts()
    assert costs.ratio(4, 60, 9.9) == 1.0
    for rows, seconds in ((4, 9.0), (4, 0.1), (64, 9.0), (64, 0.3)):
        costs.note(rows, seconds)
    assert abs(costs.ratio(5, 60, 0.0) - 3.0) < 1e-9
    assert abs(costs.ratio(5, 60, 0.1) - 4.0) < 1e-9
    costs.note(4, 1000.0)
    assert costs.ratio(4, 60, 0.0) > 2.0
    assert costs.ratio(64, 4, 0.0) == 1.0
