"""A head on the engine's own states: values as without a cache, and nothing computed twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from ramify import LLM, InputError, SamplingParams
from ramify.models.reward_head import RewardHead, save_reward_head
from ramify.search import REWARD

PROMPT = [1, 2, 3, 4, 5, 6, 7]


@pytest.fixture
def head(tmp_path: Path) -> Path:
    weight = torch.randn(1, 48, generator=torch.Generator().manual_seed(3))
    save_reward_head(RewardHead([(weight, torch.tensor([0.1]))]), tmp_path)
    return tmp_path


def expected(model: LlamaForCausalLM, tokens: Sequence[int]) -> float:
    weight = torch.randn(1, 48, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        state = model.model(torch.tensor([list(tokens)])).last_hidden_state[0, -1]
    return float((weight[0] @ state + 0.1).sigmoid())


def test_a_nodes_value_is_that_of_its_whole_path_and_takes_one_row(
    make_llm: Callable[..., LLM], tiny: tuple[Path, LlamaForCausalLM], head: Path
) -> None:
    llm = make_llm(reward_model={"head": str(head)})
    root = llm.tree(PROMPT, seed=4)
    for node in root.expand(3, SamplingParams(max_tokens=5)):
        # the branch's last token has not been computed: nothing needed it
        assert node.reward() == pytest.approx(expected(tiny[1], node.path_token_ids), abs=1e-4)
        computed = root.usage.computed_tokens
        assert node.reward() == pytest.approx(expected(tiny[1], node.path_token_ids), abs=1e-4)
        assert root.usage.computed_tokens == computed
        with_more = [*node.path_token_ids, 8, 9]
        assert node.reward([8, 9]) == pytest.approx(expected(tiny[1], with_more), abs=1e-4)
        assert root.usage.computed_tokens == computed + 2
    # seven of the prompt, five of each branch and two more of each question
    assert root.usage.computed_tokens == 7 + 3 * 5 + 3 * 2
    root.finish()


def test_a_suffix_of_the_config_stands_behind_every_path(
    make_llm: Callable[..., LLM], bytes_model: Path, head: Path
) -> None:
    plain = make_llm(bytes_model, reward_model={"head": str(head)})
    asks = make_llm(bytes_model, reward_model={"head": str(head), "suffix": "?\n"})
    assert asks.reward("abc", ["d", ""]) == pytest.approx(plain.reward("abc", ["d?\n", "?\n"]))


def test_a_search_ranks_by_the_reward(
    make_llm: Callable[..., LLM], tiny: tuple[Path, LlamaForCausalLM], head: Path
) -> None:
    llm = make_llm(reward_model={"head": str(head)})
    params = SamplingParams(n=6, max_tokens=4, seed=2)
    result = llm.search(PROMPT, "best_of_n", params=params, scorer="reward")
    wanted = [expected(tiny[1], [*PROMPT, *output.token_ids]) for output in result.outputs]
    assert [output.score for output in result.outputs] == pytest.approx(wanted, abs=1e-4)
    assert wanted == sorted(wanted, reverse=True)
    again = llm.search(PROMPT, "best_of_n", params=params, scorer=REWARD)
    assert [o.token_ids for o in again.outputs] == [o.token_ids for o in result.outputs]


def test_what_cannot_be_valued_is_said(make_llm: Callable[..., LLM], head: Path) -> None:
    params = SamplingParams(max_tokens=4)
    with pytest.raises(InputError, match="scorer 'reward': expected a reward_model to ask"):
        make_llm().search(PROMPT, "best_of_n", params=params, scorer="reward")
    with pytest.raises(InputError, match="Score.reward: expected a reward_model to ask"):
        make_llm().reward(PROMPT, [[1]])
    llm = make_llm(reward_model={"head": str(head)}, max_context=9)
    with pytest.raises(InputError, match=r"a path of 7 \+ 3 tokens exceeds the context of 9"):
        llm.reward(PROMPT, [[1, 2, 3]])
