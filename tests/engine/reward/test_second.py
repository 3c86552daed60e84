"""A second model beside the first: transformers' values, its own prefixes, one budget."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedModel

from ramify import LLM, ConfigError, InputError, RequestAborted, SamplingParams
from ramify.core.errors import ScorerError
from ramify.engine.memory import Beside
from ramify.engine.reward.second import SecondModel
from ramify.models.reward_head import RewardHead, save_reward_head
from ramify.search import REWARD, Budget, NodeScorer, Value, make_controller

PROMPT = [1, 2, 3, 4, 5, 6, 7]


def second(llm: LLM) -> SecondModel:
    valuer = llm.engine.live.valuer
    assert isinstance(valuer, SecondModel)
    return valuer


def logits(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0]


def test_values_are_those_of_transformers(
    make_llm: Callable[..., LLM], classifier: tuple[Path, PreTrainedModel]
) -> None:
    path, model = classifier
    llm = make_llm(reward_model=str(path))
    given = [[8, 9], [], [8, 10, 11], [95]]
    wanted = [logits(model, [*PROMPT, *tokens]).softmax(-1)[1].item() for tokens in given]
    assert llm.reward(PROMPT, given) == pytest.approx(wanted, abs=1e-4)
    # the first model had nothing to do
    assert llm.engine.cache.available == llm.engine.limits.num_slots
    assert llm.engine.executor.kv_bytes_read == 0
    second(llm).engine.cache.check_integrity()
    assert not second(llm).engine.cache.cursors


def test_other_tokens_are_met_by_text(
    make_llm: Callable[..., LLM], byte_classifier: tuple[Path, PreTrainedModel]
) -> None:
    path, model = byte_classifier
    settings = {"model": str(path), "activation": "identity", "suffix": "!"}
    llm = LLM("ramify-tiny", device="cpu", num_slots=600, reward_model=settings)
    prompt, texts = "sort 3 1 2\n", ["1 2 3\n", ""]
    encode = AutoTokenizer.from_pretrained(path).encode
    wanted = [logits(model, encode(prompt + text + "!")).item() for text in texts]
    assert llm.reward(prompt, texts) == pytest.approx(wanted, abs=1e-4)
    # by the same way with tokens of which there is no text
    ids = llm.engine.live.codec.encode_prompt(prompt)
    assert llm.reward(ids, texts) == pytest.approx(wanted, abs=1e-4)


def test_a_causal_model_answers_by_labels_or_by_a_head(
    make_llm: Callable[..., LLM], tiny: tuple[Path, LlamaForCausalLM], tmp_path: Path
) -> None:
    path, model = tiny
    weight = torch.randn(1, 48)
    save_reward_head(RewardHead([(weight, None)], activation="identity"), tmp_path)
    tokens = torch.tensor([[*PROMPT, 8]])
    with torch.no_grad():
        pair = model(tokens).logits[0, -1, [5, 60]].softmax(-1)
        raw = weight @ model.model(tokens).last_hidden_state[0, -1]
    labels = make_llm(reward_model={"model": str(path), "labels": [5, 60]})
    assert labels.reward(PROMPT, [[8]]) == pytest.approx([pair[0].item()], abs=1e-4)
    head = make_llm(reward_model={"model": str(path), "head": str(tmp_path)})
    assert head.reward(PROMPT, [[8]]) == pytest.approx([raw.item()], abs=1e-4)


@pytest.mark.parametrize("algorithm", ["tot", "tot_dfs", "dvts", "rebase", "mcts", "smc"])
def test_every_search_over_steps_finds_the_rewards_of_its_steps(
    make_llm: Callable[..., LLM], classifier: tuple[Path, PreTrainedModel], algorithm: str
) -> None:
    path, model = classifier
    llm = make_llm(reward_model=str(path), num_slots=1200)
    sizes = {"tot": {"k": 2, "width": 2}, "tot_dfs": {"k": 2}, "dvts": {"k": 2, "width": 2}}
    sizes |= {"rebase": {"width": 3}, "mcts": {"k": 2}, "smc": {"width": 3}}
    result = llm.search(
        PROMPT,
        algorithm,
        params=SamplingParams(max_tokens=3, seed=1),
        depth=3,
        budget=Budget(tokens=60),
        scorer="reward",
        **sizes[algorithm],
    )
    at = {node.id: node for node in result.tree}
    scored = [node for node in result.tree if node.score is not None and node.parent is not None]
    assert len(scored) > 4
    for node in scored:
        tokens: list[int] = []
        above: int | None = node.id
        while above is not None:
            tokens = at[above].token_ids + tokens
            above = at[above].parent
        if algorithm != "mcts":  # whose nodes show the mean of what is below
            wanted = logits(model, tokens).softmax(-1)[1].item()
            assert node.score == pytest.approx(wanted, abs=1e-4)
    # a step's text repeats its parent's, which the second model has in its cache
    cost = result.usage
    assert 0 < cost.reward_tokens <= len(PROMPT) + cost.generated_tokens + 2 * len(at)
    assert not second(llm).has_work and not second(llm).engine.cache.cursors


def test_what_was_valued_before_is_not_computed_again(
    make_llm: Callable[..., LLM], classifier: tuple[Path, PreTrainedModel]
) -> None:
    llm = make_llm(reward_model=str(classifier[0]))
    root = llm.tree(PROMPT, seed=3)
    above = root.append([20, 21, 22])
    for node, new in ((above, 7 + 3), (above.append([30, 31]), 2), (above.append([30, 32]), 1)):
        before = root.usage.reward_tokens
        wanted = logits(classifier[1], node.path_token_ids).softmax(-1)[1].item()
        assert node.reward() == pytest.approx(wanted, abs=1e-4)
        assert root.usage.reward_tokens - before == new
    before = root.usage.reward_tokens, root.usage.reward_kv_bytes_read
    above.reward()
    assert root.usage.reward_tokens == before[0]
    token_bytes = second(llm).engine.executor.kv_bytes_per_token
    assert root.usage.reward_kv_bytes_read - before[1] == (7 + 3) * token_bytes
    root.finish()


def test_a_scorer_of_ones_own_may_read_the_reward(
    make_llm: Callable[..., LLM], classifier: tuple[Path, PreTrainedModel]
) -> None:
    llm = make_llm(reward_model=str(classifier[0]))
    params = SamplingParams(n=4, max_tokens=3, seed=2)

    def lowest(tree: object, node: int) -> Value:
        return Value(score=-tree[node].reward)  # type: ignore[index]

    best = llm.search(PROMPT, params=params, scorer=REWARD)
    worst = llm.search(PROMPT, params=params, scorer=NodeScorer(lowest, reads_reward=True))
    assert [o.token_ids for o in worst.outputs] == [o.token_ids for o in best.outputs][::-1]


def test_a_branch_that_is_cut_asks_no_more(
    make_llm: Callable[..., LLM], classifier: tuple[Path, PreTrainedModel]
) -> None:
    llm = make_llm(reward_model=str(classifier[0]))
    root = llm.tree(PROMPT)
    (node,) = root.expand(1, SamplingParams(max_tokens=2))
    value = node.reward()
    llm.abort(root.request_id)
    with pytest.raises(Exception, match="aborted"):
        node.reward()
    while llm.engine.has_work:
        llm.engine.step()
    assert not second(llm).engine.live.requests
    assert llm.reward(PROMPT, [node.path_token_ids[7:]]) == pytest.approx([value], abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_a_crowd_in_small_pools_ends_and_leaves_nothing(
    make_llm: Callable[..., LLM], classifier: tuple[Path, PreTrainedModel], seed: int
) -> None:
    rng = random.Random(seed)
    llm = make_llm(
        num_slots=rng.choice([90, 150, 300]),
        max_rows=rng.choice([4, 64]),
        policy=rng.choice(["fcfs", "prefill_first"]),
        prefix_cache=seed % 4 > 0,
        speculative_config="ngram" if seed % 2 else None,
        reward_model={"model": str(classifier[0]), "kv_share": rng.choice([0.3, 0.6])},
    )
    engine, requests = llm.engine, []
    for index in range(6):
        params = SamplingParams(n=3, max_tokens=rng.randint(1, 5), seed=index)
        options = {"params": params, "scorer": REWARD, "budget": Budget(tokens=30)}
        controller = make_controller("best_of_n", **options)
        if index % 2:
            controller = make_controller("rebase", width=3, depth=3, **options)
        prompt = [rng.randrange(90) for _ in range(rng.randint(1, 20))] if index % 3 else PROMPT
        requests.append(engine.submit(controller, prompt, is_valued=True))
    for steps in range(4000):
        if not engine.has_work:
            break
        engine.step()
        if steps == 9:
            engine.abort(requests[seed % 6])
    assert all(request.is_done for request in requests)
    for request in requests:
        assert request.error is None or isinstance(request.error, RequestAborted | ScorerError)
    inner = second(llm).engine
    assert not inner.live.requests and not inner.cache.cursors
    inner.cache.check_integrity()


def test_both_pools_come_out_of_one_budget(
    make_llm: Callable[..., LLM], classifier: tuple[Path, PreTrainedModel]
) -> None:
    config = {"model": str(classifier[0]), "kv_share": 0.25}
    llm = make_llm(num_slots=401, reward_model=config)
    assert llm.engine.limits.num_slots == 300
    assert second(llm).engine.limits.num_slots == 100
    llm = make_llm(num_slots=None, kv_gib=0.001, reward_model=config)
    inner = second(llm).engine
    used = sum(
        engine.limits.num_slots * engine.executor.kv_bytes_per_token
        for engine in (llm.engine, inner)
    )
    assert 0.98 * 2**30 / 1000 < used <= 2**30 / 1000
    assert inner.limits.num_slots == llm.engine.limits.num_slots // 3
    beside = Beside(token_bytes=1000, step_bytes=0, share=0.5)
    assert beside.bytes_per_slot == 1000 and beside.slots_left(9) == 4 and beside.slots(4) == 4


def test_texts_that_do_not_fit_and_models_that_do_not_match_are_refused(
    make_llm: Callable[..., LLM],
    classifier: tuple[Path, PreTrainedModel],
    byte_classifier: tuple[Path, PreTrainedModel],
    tiny: tuple[Path, LlamaForCausalLM],
) -> None:
    llm = make_llm(num_slots=100, reward_model=str(classifier[0]))
    with pytest.raises(InputError, match=r"prompt: expected fewer than 50 tokens \(KV pool\)"):
        llm.reward(list(range(20)), [list(range(40))])
    with pytest.raises(ConfigError, match="expected a tokenizer, as has the other model"):
        make_llm(reward_model=str(byte_classifier[0]))
    with pytest.raises(ConfigError, match="expected a head, score.weight"):
        make_llm(reward_model=str(tiny[0]))
    with pytest.raises(ConfigError, match="expected an existing directory"):
        make_llm(reward_model="./nowhere")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["classifier", "labels", "head"])
def test_a_gpu_gives_the_values_of_the_cpu(
    byte_classifier: tuple[Path, PreTrainedModel], tmp_path: Path, kind: str
) -> None:
    save_reward_head(RewardHead([(torch.randn(1, 256) / 16, None)]), tmp_path)
    config = {
        "classifier": {"model": str(byte_classifier[0])},
        "labels": {"model": "ramify-tiny", "labels": [" yes", " no"], "suffix": "?"},
        "head": {"head": str(tmp_path)},
    }[kind]
    texts = ["8 / 2 = 4 left 4 4 7\n", "8 - 2 = 6 left 4 6 7\n", "", "4 + 7"]
    values = {}
    for device in ("cpu", "cuda"):
        settings = {"device": device, "dtype": "float32", "num_slots": 2000}
        llm = LLM("ramify-tiny", reward_model=config, **settings)
        values[device] = [llm.reward("puzzle 4 7 8 2 -> 24\n", texts) for _ in range(2)]
    for again in (0, 1):  # with a warm cache too
        assert values["cuda"][again] == pytest.approx(values["cpu"][0], abs=2e-3)
