"""The loop's own promises: protocol errors, stalled controllers, threads, interrupts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ramify import LLM, BeamSearchParams, InputError, RequestAborted, SamplingParams
from ramify.search.controller import (
    Action,
    Append,
    Close,
    Event,
    Expand,
    Failed,
    Finish,
    Finished,
    Prune,
    Score,
    Spawned,
    Started,
)
from ramify.search.tree import TreeView
from ramify.testing.models import save_tiny_llama

STEP = SamplingParams(max_tokens=2)


class Script:
    """Answers the n-th call with the n-th list of actions."""

    def __init__(self, *answers: Sequence[Action]) -> None:
        self.answers = list(answers)
        self.events: list[Event] = []

    def advance(self, tree: TreeView, events: Sequence[Event]) -> Sequence[Action]:
        self.events += events
        return self.answers.pop(0) if self.answers else []


EXPAND = Expand(node=0, k=1, params=STEP)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([[]], "controller: expected an action"),
        ([[EXPAND]], "controller: expected an action"),
        ([[Expand(node=7, k=1, params=STEP)]], "node: expected a node of this tree, got 7"),
        ([[Expand(node=0, k=0, params=STEP)]], "Expand.k: expected an int >= 1, got 0"),
        ([[EXPAND, Close(node=0)]], "expected no growth under way"),
        ([[Prune(node=0), EXPAND]], "expected a node that is not pruned"),
        ([[Close(node=0), EXPAND]], "expected complete and not closed, got closed"),
        ([[Append(node=0, tokens=(400,))]], r"tokens\[...\]: expected a token id"),
        ([[Score(node=0, labels=(400,))]], r"expected a token id"),
        ([[EXPAND], [Expand(node=1, k=1, params=STEP)]], "expected complete and not closed"),
    ],
)
def test_a_controller_that_breaks_the_protocol_fails_alone(
    make_llm: Callable[..., LLM], answers: list[list[Action]], message: str
) -> None:
    llm = make_llm()
    stream = llm.stream([1, 2], SamplingParams(max_tokens=9, seed=0))
    next(stream)
    with pytest.raises(InputError, match=message):
        llm.search([1, 2, 3], controller=Script(*answers))
    assert len(list(stream)[-1].outputs[0].token_ids) == 9


def test_events_come_in_order_and_none_for_pruned_nodes(make_llm: Callable[..., LLM]) -> None:
    script = Script(
        [Expand(node=0, k=2, params=STEP, tag="a"), Score(node=0, top=1)],
        [Prune(node=1)],
        [Append(node=2, tokens=(5, 6), top=1)],
        [Finish(outputs=(3,))],
    )
    result = make_llm().search([1, 2, 3], controller=script)
    kinds = [type(event).__name__ for event in script.events]
    assert kinds == ["Started", "Scored", "Spawned", "Finished", "Appended"]
    assert [e.node for e in script.events if isinstance(e, Finished)] == [2]
    assert result.outputs[0].token_ids[-2:] == [5, 6]


def test_a_full_context_is_reported_as_failed(make_llm: Callable[..., LLM]) -> None:
    script = Script([Append(node=0, tokens=(1,) * 6, tag="x")], [Finish()])
    make_llm(max_context=8).search([1, 2, 3], controller=script)
    assert isinstance(script.events[0], Started)
    assert isinstance(script.events[1], Failed) and script.events[1].tag == "x"
    assert not any(isinstance(event, Spawned) for event in script.events)


def test_a_branch_ends_at_the_context(make_llm: Callable[..., LLM]) -> None:
    (output,) = make_llm(max_context=8).generate([[1, 2, 3]], SamplingParams(max_tokens=50, seed=0))
    assert len(output.outputs[0].token_ids) == 5
    assert output.outputs[0].finish_reason == "length"


def test_abort_from_another_thread(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm()
    stream = llm.stream([1, 2], SamplingParams(max_tokens=400, seed=0))
    next(stream)
    thread = threading.Thread(target=llm.abort, args=(stream.request_id,))
    thread.start()
    thread.join()
    (other,) = llm.generate([[3, 4]], SamplingParams(max_tokens=5, seed=0))
    assert len(other.outputs[0].token_ids) == 5
    assert list(stream)[-1].outputs[0].finish_reason == "abort"


def test_an_interrupt_aborts_what_was_asked_and_keeps_the_engine(
    make_llm: Callable[..., LLM],
) -> None:
    llm = make_llm()

    def interrupt(tree: TreeView) -> None:
        if tree.generated_tokens > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        llm.search([1, 2], "sample", params=SamplingParams(max_tokens=50), on_step=interrupt)
    assert not llm.engine.live.requests
    (after,) = llm.generate([[1, 2]], SamplingParams(max_tokens=5, seed=0))
    assert len(after.outputs[0].token_ids) == 5


def test_an_aborted_search_says_so(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm()

    def abort(tree: TreeView) -> None:
        for request_id in list(llm.engine.live.requests):
            llm.abort(request_id)

    with pytest.raises(RequestAborted):
        llm.search([1, 2], "sample", params=SamplingParams(max_tokens=50), on_step=abort)


def test_the_end_of_text_stops_without_a_reason(
    tmp_path: Path, make_llm: Callable[..., LLM]
) -> None:
    save_tiny_llama(tmp_path, eos_token_id=7)
    llm = make_llm(tmp_path)
    forced = {"logit_bias": {7: 1000.0}, "max_tokens": 4, "temperature": 0.0}
    (plain,) = llm.generate([[1, 2]], SamplingParams(**forced))
    assert plain.outputs[0].token_ids == [7]
    assert (plain.outputs[0].finish_reason, plain.outputs[0].stop_reason) == ("stop", None)
    (asked,) = llm.generate([[1, 2]], SamplingParams(**forced, stop_token_ids=[7]))
    assert asked.outputs[0].stop_reason == 7
    (ignored,) = llm.generate([[1, 2]], SamplingParams(**forced, ignore_eos=True))
    assert ignored.outputs[0].token_ids == [7] * 4


def test_beams_say_what_they_generated(make_llm: Callable[..., LLM]) -> None:
    params = BeamSearchParams(beam_width=3, max_tokens=4)
    (output,) = make_llm().beam_search([[1, 2]], params)
    assert [len(beam.token_ids) for beam in output.outputs] == [4, 4, 4]
    # three beams of three tokens and the last token of each, which the pool may share
    assert 3 * 3 <= output.usage.generated_tokens <= 3 * 4


def test_nothing_to_compute_and_nothing_asked(make_llm: Callable[..., LLM]) -> None:
    """A step without rows is no lack of slots: no token is left to compute, none is predicted."""
    llm = make_llm()
    params = SamplingParams(max_tokens=2, prompt_logprobs=1, seed=0)
    for _ in range(2):  # cold, then with the prompt in the prefix cache
        (output,) = llm.generate([[5]], params)
        assert output.error is None and output.prompt_logprobs == [None]
    root = llm.tree([5, 6])
    nothing = root.append([])
    assert nothing.path_token_ids == [5, 6]
    assert len(nothing.expand(1, STEP)[0].token_ids) == 2
    root.finish()


def test_nobody_waits_for_a_prefix_that_nobody_computes(make_llm: Callable[..., LLM]) -> None:
    """A tree by hand whose KV was dropped still has its tokens; it may stay idle for ever."""
    llm = make_llm()
    prompt = list(range(1, 30))
    root = llm.tree(prompt, seed=0)
    root.expand(1, STEP)
    assert llm.engine.live.drop_idle(600) > 0
    (output,) = llm.generate([prompt], STEP)
    assert output.error is None and len(output.outputs[0].token_ids) == 2
    root.finish()


def test_abort_by_number_before_the_first_step(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm()
    stream = llm.stream([1, 2, 3], SamplingParams(max_tokens=50))
    assert llm.abort(stream.request_id)
    assert list(stream)[-1].finished and not llm.abort(stream.request_id)
