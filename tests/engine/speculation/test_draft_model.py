"""A model that drafts for itself is always right; what it drafts are its likeliest paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from ramify import LLM, ConfigError, SamplingParams
from ramify.core.seeds import gumbel_noise
from ramify.core.speculative import SpeculativeConfig
from ramify.engine.speculation.device_noise import gumbel_noise_on
from ramify.engine.speculation.draft import ROOT, DraftContext, DraftTree
from ramify.engine.speculation.draft_model import ModelDrafter, open_draft_model
from ramify.testing.models import save_tiny_llama


def drafter_of(path: Path, width: int = 3, num_slots: int = 300) -> ModelDrafter:
    config = SpeculativeConfig(method="draft_model", model=str(path), num_slots=num_slots)
    executor = open_draft_model(config, LLM(str(path), num_slots=9).config, 96)
    return ModelDrafter(executor, num_slots=num_slots, width=width)


def context(tokens: list[int], temperature: float, most: int, depth: int) -> DraftContext:
    params = SamplingParams(temperature=temperature)
    return DraftContext("b", np.array(tokens), params, 7, most, depth)


def expected(
    model: LlamaForCausalLM, given: DraftContext, width: int
) -> dict[tuple[int, ...], float]:
    """Chances of the paths that a beam of this width sees, from transformers' logits."""
    level: dict[tuple[int, ...], float] = {(): 1.0}
    seen: dict[tuple[int, ...], float] = {}
    for depth in range(given.max_depth):
        children: dict[tuple[int, ...], float] = {}
        for path, chance in level.items():
            ids = torch.tensor([[*given.token_ids.tolist(), *path]])
            with torch.no_grad():
                logits = model(ids).logits[0, -1].float()
            if given.params.temperature:
                position = len(given.token_ids) + depth
                noise = torch.from_numpy(gumbel_noise([given.seed], [position], 96)[0])
                logits = logits / given.params.temperature + noise
            best = logits.softmax(-1).topk(width)
            for value, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                children[(*path, token)] = chance * value
        seen |= children
        level = dict(sorted(children.items(), key=lambda item: -item[1])[:width])
    return dict(sorted(seen.items(), key=lambda item: -item[1])[: given.max_tokens])


def paths_of(tree: DraftTree) -> set[tuple[int, ...]]:
    paths: list[tuple[int, ...]] = []
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        paths.append((*(() if parent == ROOT else paths[parent]), token))
    return set(paths)


def test_drafts_are_the_likeliest_paths(tiny: tuple[Path, LlamaForCausalLM]) -> None:
    path, model = tiny
    drafter = drafter_of(path)
    contexts = [
        context([1, 2, 3], 0.0, 7, 4),
        context([1, 2, 3, 4, 5], 1.3, 5, 3),
        context([9], 0.0, 2, 1),
    ]
    for _ in range(2):  # the second time the paths are known
        drafts = drafter.propose(contexts)
        for given, draft in zip(contexts, drafts, strict=True):
            assert paths_of(draft) == set(expected(model, given, 3))
        drafter._cache.check_integrity()
        assert not drafter._cache.cursors


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_drafts_for_itself_is_always_right(
    make_llm: Callable[..., LLM], tiny: tuple[Path, LlamaForCausalLM], temperature: float
) -> None:
    config = {
        "method": "draft_model",
        "model": str(tiny[0]),
        "num_speculative_tokens": 4,
        "width": 1,
        "adaptive": False,
    }
    params = SamplingParams(temperature=temperature, seed=3, n=3, max_tokens=16)
    (got,) = make_llm(speculative_config=config).generate([[1, 2, 3]], params)
    (plain,) = make_llm().generate([[1, 2, 3]], params)
    assert [o.token_ids for o in got.outputs] == [o.token_ids for o in plain.outputs]
    # three branches, each its first token and three steps of four drafted and one more
    assert got.usage.accepted_tokens == got.usage.drafted_tokens == 3 * 3 * 4
    assert got.usage.steps == 4


def test_paths_that_do_not_fit_get_no_draft(tiny: tuple[Path, LlamaForCausalLM]) -> None:
    drafter = drafter_of(tiny[0], num_slots=40)
    drafts = drafter.propose(
        [context([1] * 600, 0.0, 4, 4), context([2] * 39, 0.0, 4, 4), context([3], 0.0, 4, 4)]
    )
    assert [bool(draft.tokens) for draft in drafts] == [False, False, True]
    drafter._cache.check_integrity()


def test_another_vocabulary_is_refused(tmp_path: Path, tiny: tuple[Path, LlamaForCausalLM]) -> None:
    save_tiny_llama(tmp_path, vocab_size=64)
    config = {"method": "draft_model", "model": str(tmp_path)}
    with pytest.raises(ConfigError, match="expected a vocabulary of 96, the target's, got 64"):
        LLM(str(tiny[0]), num_slots=50, speculative_config=config)


def test_the_noise_is_that_of_the_draws() -> None:
    draws = [(0, 0), (7, 12), (2**63 - 1, 4095)]
    wanted = gumbel_noise([s for s, _ in draws], [p for _, p in draws], 500)
    got = gumbel_noise_on(torch.device("cpu"), draws, 500)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-6)
