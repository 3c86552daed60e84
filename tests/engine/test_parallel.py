"""Two processes that share a model give the tokens of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ramify import LLM, BeamSearchParams, ConfigError, RequestOutput, SamplingParams
from ramify.core.outputs import TokenLogprob

PROMPTS = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 9], [40, 41]]
GREEDY = SamplingParams(max_tokens=12, temperature=0.0, logprobs=0)
SAMPLED = SamplingParams(n=3, max_tokens=9, temperature=0.9, seed=5, logprobs=0)
FILTERED = SamplingParams(n=2, max_tokens=9, temperature=0.9, top_k=5, seed=7, logprobs=0)
PENALISED = SamplingParams(
    n=2,
    max_tokens=12,
    repetition_penalty=1.3,
    frequency_penalty=0.3,
    logit_bias={5: 2.0},
    seed=8,
    logprobs=2,
)
RULES = {"greedy": GREEDY, "n": SAMPLED, "top_k": FILTERED, "penalties": PENALISED}


@pytest.fixture(scope="module")
def llms(tiny: tuple[Path, LlamaForCausalLM]) -> Iterator[tuple[LLM, LLM]]:
    """The tiny model on one process and on two, decode steps running ahead."""
    settings = {"num_slots": 600, "run_ahead": True}
    one = LLM(str(tiny[0]), **settings)
    with LLM(str(tiny[0]), tensor_parallel_size=2, **settings) as two:
        yield one, two
        assert not two.engine.live.requests
        two.engine.cache.check_integrity()
        assert two.engine.cache.available == two.engine.limits.num_slots


def assert_same(got: list[RequestOutput], want: list[RequestOutput]) -> None:
    assert len(got) == len(want) > 0
    for one, other in zip(got, want, strict=True):
        assert one.error is None and len(one.outputs) == len(other.outputs) > 0
        assert one.usage.cached_tokens == other.usage.cached_tokens
        assert one.usage.kv_bytes_read == other.usage.kv_bytes_read
        for a, b in zip(one.outputs, other.outputs, strict=True):
            assert a.token_ids == b.token_ids
            assert _ranked(a.logprobs) == _ranked(b.logprobs)
            assert a.cumulative_logprob == pytest.approx(b.cumulative_logprob, abs=1e-4)


def _ranked(reported: list[TokenLogprob] | None) -> list[tuple[int, int | None, list[int]]]:
    """Each token, its rank and the alternatives in order."""
    return [(t.token_id, t.rank, [other for other, _ in t.top]) for t in reported or ()]


@pytest.mark.parametrize("params", RULES.values(), ids=RULES)
def test_tokens_are_those_of_one_process(llms: tuple[LLM, LLM], params: SamplingParams) -> None:
    one, two = llms
    for _ in range(2):  # the second time the prompts come from the prefix cache
        assert_same(two.generate(PROMPTS, params), one.generate(PROMPTS, params))


def test_beams_scores_and_searches(llms: tuple[LLM, LLM]) -> None:
    one, two = llms
    beams = BeamSearchParams(beam_width=3, max_tokens=6)
    assert_same(two.beam_search(PROMPTS, beams), one.beam_search(PROMPTS, beams))
    scores = [llm.score(PROMPTS[0], [[7, 8], [9]]) for llm in llms]
    for want, got in zip(*scores, strict=True):
        pairs = zip(got.token_logprobs, want.token_logprobs, strict=True)
        assert all(a.logprob == pytest.approx(b.logprob, abs=1e-4) for a, b in pairs)


def test_a_tree_by_hand_forks_and_is_pruned(llms: tuple[LLM, LLM]) -> None:
    grown = []
    for llm in llms:
        root = llm.tree(PROMPTS[0], seed=3)
        first, second = root.expand(2, SamplingParams(max_tokens=5, temperature=0.8))
        first.prune()
        below = second.expand(2, SamplingParams(max_tokens=4, temperature=0.8))
        grown.append([list(node.token_ids) for node in (second, *below)])
        root.finish()
    assert grown[0] == grown[1]


def test_an_aborted_request_leaves_the_ranks_in_step(llms: tuple[LLM, LLM]) -> None:
    one, two = llms
    stream = two.stream(PROMPTS[1], SamplingParams(max_tokens=200, temperature=0.0))
    for _ in range(5):
        next(stream)
    stream.abort()
    next(stream)
    assert_same(two.generate(PROMPTS, GREEDY), one.generate(PROMPTS, GREEDY))


def test_what_cannot_be_shared_is_refused(
    tiny: tuple[Path, LlamaForCausalLM], llms: tuple[LLM, LLM]
) -> None:
    with pytest.raises(ConfigError, match="tensor_parallel_size.*num_kv_heads, 2, got 3"):
        LLM(str(tiny[0]), tensor_parallel_size=3)
    with pytest.raises(ConfigError, match="tensor_parallel_size: expected an int >= 1, got 0"):
        LLM(str(tiny[0]), tensor_parallel_size=0)
    with pytest.raises(ConfigError, match="without a torch.distributed process group"):
        LLM(str(tiny[0]), tensor_parallel_size=2)


@pytest.mark.gpu
def test_two_gpus_give_the_tokens_of_one(tmp_path: Path) -> None:
    """Sums between GPUs inside captured steps, and outside of them: the prompt of 600 tokens."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
        initializer_range=0.2,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    settings = {"device": "cuda", "dtype": "float32", "num_slots": 4000}
    prompts = [*PROMPTS, [token % 128 for token in range(600)]]
    one = LLM(str(tmp_path), **settings)
    with LLM(str(tmp_path), tensor_parallel_size=2, **settings) as two:
        for params in RULES.values():
            assert_same(two.generate(prompts, params), one.generate(prompts, params))
