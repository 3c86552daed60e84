"""Plain sampling on a scripted model."""

from __future__ import annotations

from ramify.core.params import SamplingParams
from ramify.core.seeds import child_seed
from ramify.search import Sample
from ramify.testing.scripted import ScriptedModel, run_controller
from ramify.testing.scripted_model import table_model

# "a" ends at once, "b" goes on for two letters more
MODEL = table_model({"": {"a": 0.5, "b": 0.5}, "b": {"c": 1.0}, "bc": {"d": 1.0}})


def test_outputs_are_in_index_order_whatever_order_they_end_in() -> None:
    run = run_controller(MODEL, Sample(SamplingParams(n=6, max_tokens=8)), "P", seed=3)
    assert run.finish is not None
    children = run.tree[run.tree.root].children
    assert list(run.finish.outputs) == children
    assert {"a", "bcd"} == set(run.outputs)
    assert [run.tree[c].seed for c in children] == [child_seed(3, i) for i in range(6)]
    assert run.tree.generated_tokens == sum(len(text) + 1 for text in run.outputs)


def test_temperature_zero_and_length() -> None:
    model = table_model({"": {"b": 0.6, "a": 0.4}, "b": {"c": 1.0}})
    run = run_controller(model, Sample(SamplingParams(temperature=0.0, max_tokens=2)), "P")
    (node,) = run.tree[0].children
    assert run.outputs == ["bc"]
    assert run.tree[node].finish_reason == "length"


def test_a_branch_may_end_with_its_first_token() -> None:
    run = run_controller(MODEL, Sample(SamplingParams(n=3, max_tokens=1)), "P")
    assert all(len(text) == 1 for text in run.outputs)
    assert len(run.steps) == 1


def test_an_impossible_expansion_finishes_with_its_reason() -> None:
    model = ScriptedModel(next_logprobs=lambda path: {0: 0.0}, vocab=["x"], max_context=2)
    run = run_controller(model, Sample(SamplingParams()), (0, 0))
    assert run.finish is not None
    assert run.finish.outputs == ()
    assert run.finish.stats == {"failed": "context is full"}
