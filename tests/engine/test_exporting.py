"""Exports of real trees: what they say is what the engine and the tokenizer say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ramify import LLM, BeamSearchParams, SamplingParams
from ramify.export import read_tree, tree_json


def test_a_live_tree(bytes_model: Path, make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(bytes_model)
    root = llm.tree("why ö", seed=3)
    a, b = root.expand(2, SamplingParams(max_tokens=6))
    given = a.append("upö", logprobs=0)
    given.expand(2, SamplingParams(max_tokens=3))
    a.mark(0.5)
    old = b.id
    b.rewind(2)
    tree = root.export()
    assert read_tree(tree_json(tree)) == tree
    assert tree.model == str(bytes_model) and tree.outputs == [] and not tree.solved
    assert [node.parent for node in tree.nodes] == [None, 0, 0, a.id, given.id, given.id, 0]
    # leaves: two below `given`, what `b` was, and what it is
    assert [node.num_branches for node in tree.nodes] == [4, 2, 1, 2, 1, 1, 1]
    assert tree.nodes[old].state == "pruned" and tree.nodes[b.id].forked_from == old
    assert tree.nodes[a.id].score == 0.5 and tree.nodes[a.id].seed == a.seed
    assert tree.kv_bytes_per_token == llm.engine.executor.kv_bytes_per_token
    assert tree.usage == root.usage and tree.usage is not root.usage
    tokens = [6, 6, 6, 4, 3, 3, 4]
    assert [len(node.token_ids) for node in tree.nodes] == tokens
    assert tree.stored_tokens == sum(tokens[:-1])
    texts = tree.nodes[given.id].token_texts
    assert texts == ["u", "p", "", "ö"] and tree.nodes[0].token_texts[-2:] == ["", "ö"]
    for node in (a, given):
        path = node.parent.path_token_ids
        (score,) = llm.score(path, [node.token_ids])
        expected = [token.logprob for token in score.token_logprobs]
        assert tree.nodes[node.id].token_logprobs == pytest.approx(expected, abs=1e-4)
    root.finish()
    assert root.export().nodes[:2] == tree.nodes[:2]


def test_the_tree_of_a_search_and_of_samples(
    bytes_model: Path, make_llm: Callable[..., LLM]
) -> None:
    llm = make_llm(bytes_model)
    params = SamplingParams(n=3, max_tokens=5, logprobs=0, seed=1)
    result = llm.search("why ", "best_of_n", params=params, select="logprob")
    tree = llm.export(result)
    assert [tree.nodes[node].text for node in tree.outputs] == [o.text for o in result.outputs]
    assert tree.nodes[0].num_branches == 3 and tree.stats == result.stats
    assert all(node.token_logprobs for node in tree.nodes[1:])
    (sampled,) = llm.generate("why ", params)
    plain = llm.export(sampled)
    assert [node.parent for node in plain.nodes] == [None, 0, 0, 0] and plain.outputs == []
    by_seed = {node.seed: node for node in tree.nodes}
    for node in plain.nodes[1:]:
        twin = by_seed[node.seed]
        assert node.token_ids == twin.token_ids and node.token_texts == twin.token_texts
        assert node.token_logprobs == pytest.approx(twin.token_logprobs, abs=1e-5)


def test_beams_know_the_probability_of_every_token_but_the_last(
    make_llm: Callable[..., LLM],
) -> None:
    """The last one is appended, and nobody asks the model about it again."""
    llm = make_llm()
    prompt = list(range(10))
    params = BeamSearchParams(beam_width=4, max_tokens=5)
    result = llm.search(prompt, "beam", params=params)
    tree = llm.export(result)
    (score,) = llm.score(prompt, [result.outputs[0].token_ids])
    known, at = [], tree.nodes[tree.outputs[0]]
    assert at.token_logprobs is None
    while at.parent:
        at = tree.nodes[at.parent]
        known += at.token_logprobs or ()
    expected = [token.logprob for token in score.token_logprobs[:-1]]
    (beams,) = llm.beam_search([prompt], params)
    listed = llm.export(beams)
    assert [listed.nodes[node].token_ids for node in listed.outputs] == [
        beam.token_ids for beam in result.outputs
    ]
    assert known[::-1] == pytest.approx(expected, abs=1e-4)


def test_without_a_tokenizer_there_are_no_texts(make_llm: Callable[..., LLM]) -> None:
    root = make_llm().tree([1, 2, 3])
    root.expand(1, SamplingParams(max_tokens=2))
    tree = root.export()
    assert [node.token_texts for node in tree.nodes] == [[], []]
    assert tree.nodes[1].token_logprobs is not None
    root.finish()
