"""The engine on a GPU: the CPU engine's tokens in float32; in bfloat16, near ties alone differ.

A method of attention, a graph or a step that runs ahead changes how work is cut and when it is
launched, and nothing else that a user can see.
"""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ramify import LLM, BeamSearchParams, ConfigError, SamplingParams
from ramify.core.config import ATTENTION_METHODS
from ramify.core.outputs import RequestOutput
from ramify.engine.decode_loop import DecodeLoop

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

VOCAB = 512
FEW_ULPS = 4
PROMPTS = [list(range(1, 90)), [*range(1, 60), 300, 301], [400, 7], list(range(200, 240))]
GREEDY = SamplingParams(temperature=0.0, max_tokens=24, logprobs=2, n=2)
RULES = [
    SamplingParams(temperature=0.0, max_tokens=30),
    SamplingParams(temperature=0.8, top_k=40, max_tokens=24, n=4, seed=1),
    SamplingParams(temperature=1.3, top_p=0.8, min_p=0.02, max_tokens=24, n=3, seed=2),
    SamplingParams(
        temperature=1.0,
        repetition_penalty=1.2,
        presence_penalty=0.5,
        frequency_penalty=-0.2,
        max_tokens=24,
        n=2,
        seed=3,
    ),
    SamplingParams(
        logit_bias={5: 4.0, 77: -6.0},
        stop_token_ids=[5, 6],
        min_tokens=4,
        max_tokens=24,
        n=3,
        seed=4,
        logprobs=3,
        prompt_logprobs=1,
    ),
]
BEAMS = BeamSearchParams(beam_width=5, max_tokens=12, length_penalty=0.7)

Make = Callable[..., LLM]
Results = tuple[list[list[int]], list[float]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlamaForCausalLM]:
    """A Llama with random weights, drawn wide so that distributions are peaked, and heads of 64."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        initializer_range=0.1,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=None,
    )
    path = tmp_path_factory.mktemp("llama")
    plain = LlamaForCausalLM(config).eval()
    plain.save_pretrained(path)
    return path, plain


@pytest.fixture(scope="module")
def make(model: tuple[Path, LlamaForCausalLM]) -> Make:
    """Engines on that model, of one pool size."""
    return lambda **settings: LLM(str(model[0]), **{"num_slots": 3000, **settings})


# ── float32: the tokens of the CPU engine ────────────────────────────────────────────────────────
def everything(llm: LLM) -> Results:
    """Tokens and log-probabilities: samples by all rules, together; forks by hand; beams."""
    outputs = llm.generate(PROMPTS * 2, [RULES[i % len(RULES)] for i in range(2 * len(PROMPTS))])
    tokens, logprobs = _completions(outputs)
    root = llm.tree(PROMPTS[0], seed=9)
    grown = root.expand(3, RULES[1])
    grown += grown[0].fork(len(PROMPTS[0]) + 7).expand(2, RULES[2])
    grown += grown[1].append([3, 4, 5]).expand(2, SamplingParams(temperature=0.0, max_tokens=9))
    tokens += [node.token_ids for node in grown]
    logprobs += [node.cumulative_logprob for node in grown]
    root.finish()
    beams, scores = _completions(llm.beam_search(PROMPTS[1:3], BEAMS))
    return tokens + beams, logprobs + scores


def _completions(outputs: Sequence[RequestOutput]) -> Results:
    assert [output.error for output in outputs] == [None] * len(outputs)
    branches = [branch for output in outputs for branch in output.outputs]
    return [b.token_ids for b in branches], [b.cumulative_logprob for b in branches]


@pytest.fixture(scope="module")
def wanted(make: Make) -> Results:
    return everything(make(device="cpu", dtype="float32", method="per_branch", run_ahead=False))


def check(llm: LLM, wanted: Results) -> None:
    """Cold, then with a warm prefix cache; nothing is left behind."""
    for _ in range(2):
        tokens, logprobs = everything(llm)
        assert tokens == wanted[0]
        assert logprobs == pytest.approx(wanted[1], abs=2e-3)
    llm.engine.cache.check_integrity()
    assert llm.engine.cache.available == 3000 and not llm.engine.cache.cursors


@pytest.mark.parametrize("run_ahead", [False, True], ids=["waiting", "ahead"])
@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["launched", "graphs"])
def test_the_cpus_tokens_in_float32(
    make: Make, wanted: Results, cuda_graphs: bool, run_ahead: bool
) -> None:
    llm = make(device="cuda", dtype="float32", cuda_graphs=cuda_graphs, run_ahead=run_ahead)
    check(llm, wanted)


@pytest.mark.parametrize("method", ATTENTION_METHODS)
def test_the_cpus_tokens_by_every_method(make: Make, wanted: Results, method: str) -> None:
    check(make(device="cuda", dtype="float32", method=method, cuda_graphs=False), wanted)


REPORTED = [
    SamplingParams(max_tokens=24, n=4, seed=1, logprobs=5, ignore_eos=True),
    SamplingParams(max_tokens=24, n=4, seed=2, logprobs=0, repetition_penalty=1.3, top_k=50),
    SamplingParams(
        max_tokens=24, n=4, seed=3, presence_penalty=0.6, frequency_penalty=0.4, top_p=0.9
    ),
    SamplingParams(
        max_tokens=24,
        n=4,
        seed=4,
        temperature=0.7,
        logprobs=2,
        repetition_penalty=0.9,
        logit_bias={7: 3.0, 8: -5.0},
        stop_token_ids=[40, 41, 42],
        min_tokens=16,
    ),
]


def reported(llm: LLM) -> tuple[list[list[int]], list[float]]:
    """Tokens; log-probabilities, and those of alternatives, whose order ends at near ties."""
    outputs = llm.generate(PROMPTS, REPORTED)
    branches = [branch for output in outputs for branch in output.outputs]
    told = [token for branch in branches for token in branch.logprobs or ()]
    numbers = [logprob for branch in branches for logprob in branch.token_logprobs or ()]
    numbers += [p for token in told for p in (token.logprob, *(p for _, p in token.top))]
    assert len(told) >= 2 * 4 * 24 + 4 * 16
    return [branch.token_ids for branch in branches], numbers


@pytest.fixture(scope="module")
def wanted_reports(make: Make) -> tuple[list[list[int]], list[float]]:
    return reported(make(device="cpu", dtype="float32", method="per_branch", run_ahead=False))


@pytest.mark.parametrize("run_ahead", [False, True], ids=["waiting", "ahead"])
@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["launched", "graphs"])
def test_penalties_bias_and_reports_captured_or_not(
    make: Make,
    wanted_reports: tuple[list[list[int]], list[float]],
    cuda_graphs: bool,
    run_ahead: bool,
) -> None:
    llm = make(device="cuda", dtype="float32", cuda_graphs=cuda_graphs, run_ahead=run_ahead)
    for _ in range(2):
        tokens, numbers = reported(llm)
        assert tokens == wanted_reports[0]
        assert numbers == pytest.approx(wanted_reports[1], abs=1e-3)
    loop = llm.engine.executor.loop
    assert isinstance(loop, DecodeLoop)
    assert ("_edited" in vars(loop._draws)) == run_ahead  # room for edits in runs


# ── bfloat16: near ties alone differ ─────────────────────────────────────────────────────────────
def family(count: int) -> list[list[int]]:
    """Prompts that share all but their last token."""
    return [[*range(1, 150), 2 * i] for i in range(count)]


def greedy(llm: LLM, prompts: list[list[int]]) -> list[list[int]]:
    params = SamplingParams(temperature=0.0, max_tokens=48)
    return [output.outputs[0].token_ids for output in llm.generate(prompts, params)]


def count_other_ways(
    engines: Sequence[LLM], prompts: list[list[int]], plain: LlamaForCausalLM
) -> int:
    """Branches in which two engines differ; each must part at a near tie, by both engines."""
    count = 0
    for prompt, one, other in zip(prompts, *(greedy(e, prompts) for e in engines), strict=True):
        if one == other:
            continue
        at = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        path = [*prompt, *one[:at]]
        with torch.no_grad():
            size = plain(torch.tensor([path])).logits[0, -1].abs().amax().item()
        ulp = 2.0 ** (math.floor(math.log2(size)) - 7)  # bfloat16 keeps 8 bits
        for engine in engines:
            a, b = (s.logprob for s in engine.score(path, [[one[at]], [other[at]]]))
            assert abs(a - b) <= FEW_ULPS * ulp, f"{one[at]} and {other[at]} after {path}"
        count += 1
    return count


def test_a_graph_gives_the_tokens_of_its_launches(
    make: Make, model: tuple[Path, LlamaForCausalLM]
) -> None:
    """Sixteen branches need no padding: the same kernels on the same shapes."""
    engines = [make(device="cuda", dtype="bfloat16", cuda_graphs=g) for g in (True, False)]
    assert count_other_ways(engines, family(16), model[1]) == 0


@pytest.mark.parametrize("settings", [{"run_ahead": False}, {"method": "per_branch"}], ids=str)
def test_other_ways_to_a_step_part_at_near_ties(
    make: Make,
    model: tuple[Path, LlamaForCausalLM],
    settings: dict[str, Any],
    record_property: Callable[[str, object], None],
) -> None:
    """Waiting against running ahead, branch by branch against the tree, at an odd width.

    How many part is the model's doing: of random weights, whose logits lie close together.
    """
    engines = [make(device="cuda", dtype="bfloat16", **more) for more in ({}, settings)]
    prompts = family(37)
    count = count_other_ways(engines, prompts, model[1])
    record_property("branches that differ", f"{count} of {len(prompts)}")


# ── memory at the start ──────────────────────────────────────────────────────────────────────────
def write_huge(path: Path) -> Path:
    """A model whose weights no GPU holds; it is never made."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 16384,
        "intermediate_size": 65536,
        "num_hidden_layers": 200,
        "num_attention_heads": 128,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "bfloat16",
    }
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


@pytest.mark.parametrize("what", ["pool", "model"])
def test_too_little_memory_is_said_with_sizes(
    model: tuple[Path, LlamaForCausalLM], tmp_path: Path, what: str
) -> None:
    gc.collect()
    before = torch.cuda.memory_allocated()
    settings: dict[str, Any] = {"model": str(model[0]), "num_slots": 10**9}
    if what == "model":
        settings = {"model": str(write_huge(tmp_path)), "load_format": "dummy"}
    with pytest.raises(ConfigError) as caught:
        LLM(device="cuda", **settings)
    message = str(caught.value)
    assert re.search(r"device: expected room for a KV pool of \d+\.\d\d GiB, got \d+", message)
    for size in ("weights", "a step", "in use", "limit"):
        assert re.search(rf"{size} \d+\.\d\d GiB", message), message
    del caught
    gc.collect()
    assert torch.cuda.memory_allocated() <= before
