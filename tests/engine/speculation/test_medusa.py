"""Medusa: the states that heads read, the likeliest tree, and tokens that stay what they were."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from ramify import LLM, SamplingParams
from ramify.engine.speculation.draft import ROOT, DraftContext, DraftTree
from ramify.engine.speculation.medusa import best_tree
from ramify.models.medusa import MedusaHeads, save_medusa
from ramify.zoo.tasks import TASKS


class Watcher:
    """Drafts the known continuation, half of it wrong, and keeps what it is shown."""

    def __init__(self, path: list[int]) -> None:
        self.path = path
        self.seen: dict[tuple[Hashable, int], Tensor] = {}
        self.texts: dict[tuple[Hashable, int], list[int]] = {}

    def observe(self, branches: Sequence[tuple[Hashable, int]], hidden: Tensor) -> None:
        self.seen |= {key: row.clone() for key, row in zip(branches, hidden, strict=True)}

    def learn(self, token_ids: Sequence[int]) -> None:
        pass

    def propose(self, contexts: Sequence[DraftContext]) -> list[DraftTree]:
        drafts = []
        for given in contexts:
            length = len(given.token_ids)
            self.texts[given.branch, length] = given.token_ids.tolist()
            ahead = self.path[length : length + 2 + length % 2]
            wrong = [(token + 1) % 96 for token in ahead[:1]]
            drafts.append(DraftTree.from_continuations([wrong, [*ahead, 5]], 9, 9))
        return drafts


def test_the_states_shown_are_those_that_the_newest_tokens_were_drawn_from(
    make_llm: Callable[..., LLM], tiny: tuple[Path, LlamaForCausalLM]
) -> None:
    params = SamplingParams(n=3, temperature=0.6, seed=5, max_tokens=12)
    (plain,) = make_llm().generate([[1, 2, 3, 4]], params)
    watcher = Watcher([1, 2, 3, 4, *plain.outputs[0].token_ids])
    config = {"method": "custom", "drafter": watcher, "adaptive": False}
    (got,) = make_llm(speculative_config=config).generate([[1, 2, 3, 4]], params)
    assert [o.token_ids for o in got.outputs] == [o.token_ids for o in plain.outputs]
    assert got.usage.accepted_tokens >= 4
    # whoever is asked for a draft was shown the state it begins at
    assert len(watcher.texts) > 20 and watcher.texts.keys() <= watcher.seen.keys()
    for key, text in watcher.texts.items():
        with torch.no_grad():
            wanted = tiny[1].model(torch.tensor([text[:-1]])).last_hidden_state[0, -1]
        torch.testing.assert_close(watcher.seen[key], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("most", "depth"), [(1, 3), (7, 3), (30, 2), (200, 3)])
def test_the_tree_holds_the_likeliest_paths(most: int, depth: int) -> None:
    rng = np.random.default_rng(most)
    chances = -np.sort(-rng.dirichlet(np.ones(5), size=3), axis=1)
    tokens = np.array([rng.permutation(5) for _ in range(3)])
    tree = best_tree(tokens.tolist(), chances.tolist(), most, depth)
    worth = {
        tuple(int(tokens[d, k]) for d, k in enumerate(ranks)): float(
            np.prod([chances[d, k] for d, k in enumerate(ranks)])
        )
        for size in range(1, depth + 1)
        for ranks in product(range(5), repeat=size)
    }
    paths: list[tuple[int, ...]] = []
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        paths.append((*(() if parent == ROOT else paths[parent]), token))
    assert paths == sorted(worth, key=lambda path: -worth[path])[:most]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_tokens_are_those_of_plain_decoding(
    make_llm: Callable[..., LLM],
    tiny: tuple[Path, LlamaForCausalLM],
    tmp_path: Path,
    temperature: float,
) -> None:
    torch.manual_seed(0)
    heads = MedusaHeads.beside(tiny[1].lm_head.weight.detach().t(), num_heads=3)
    heads.weight.data.normal_(std=0.2)
    save_medusa(heads, tmp_path)
    params = SamplingParams(n=3, temperature=temperature, seed=3, max_tokens=20)
    prompts = [[1, 2, 3], list(range(40)), [7] * 9]
    config = {"method": "medusa", "model": str(tmp_path), "num_speculative_tokens": 90}
    got = make_llm(speculative_config={**config, "adaptive": False}).generate(prompts, params)
    plain = make_llm().generate(prompts, params)
    for a, b in zip(got, plain, strict=True):
        assert [o.token_ids for o in a.outputs] == [o.token_ids for o in b.outputs]
    # random heads over all paths of one token and many of two: some are right
    assert sum(output.usage.accepted_tokens for output in got) > 20
    assert all(output.usage.drafted_tokens > 0 for output in got)


@pytest.mark.parametrize("count", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_the_bundled_heads_bring_tokens_on_problems_they_have_not_seen(count: int) -> None:
    rng = np.random.default_rng(9)
    settings = {"device": "cpu", "num_slots": 16384}
    drafts, plain = LLM(speculative_config="medusa", **settings), LLM(**settings)
    for name, least in (("puzzle", 2.0), ("sort", 3.0), ("merge", 2.5), ("documents", 1.5)):
        shape = {"num_tokens": 200} if name == "documents" else {}
        problems = [TASKS[name].generate(rng, heldout=True, **shape) for _ in range(count)]
        params = SamplingParams(temperature=0.0, max_tokens=64)
        prompts = [problem.prompt for problem in problems]
        got, wanted = drafts.generate(prompts, params), plain.generate(prompts, params)
        assert [o.outputs[0].token_ids for o in got] == [o.outputs[0].token_ids for o in wanted]
        accepted = sum(output.usage.accepted_tokens for output in got)
        steps = sum(output.usage.verified_steps for output in got)
        assert 1 + accepted / steps > least


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["launched", "graphs"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_gpu_shows_heads_the_states_of_the_cpu(cuda_graphs: bool, temperature: float) -> None:
    rng = np.random.default_rng(9)
    prompts = [TASKS["puzzle"].generate(rng, heldout=True).prompt for _ in range(20)]
    params = SamplingParams(n=2, temperature=temperature, max_tokens=64, seed=1)
    plain = LLM("ramify-tiny", device="cpu", num_slots=8192).generate(prompts, params)
    llm = LLM(
        "ramify-tiny",
        device="cuda",
        dtype="float32",
        num_slots=8192,
        cuda_graphs=cuda_graphs,
        speculative_config={"method": "medusa", "adaptive": False},
    )
    got = llm.generate(prompts, params)
    for a, b in zip(got, plain, strict=True):
        assert [o.token_ids for o in a.outputs] == [o.token_ids for o in b.outputs]
    accepted = sum(output.usage.accepted_tokens for output in got)
    assert accepted > sum(output.usage.verified_steps for output in got)
