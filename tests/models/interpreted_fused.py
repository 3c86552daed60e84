"""The fused decoder and its kernels in Triton's interpreter.

Not collected by itself: test_fused.py runs it in a process of its own with TRITON_INTERPRET=1,
which has to be set before the kernels are imported. float16 and float32 only: the interpreter
multiplies bfloat16 wrongly. A program costs about a hundredth of a second, so shapes are small.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ramify.models.checkpoint import decoder_slots
from ramify.models.config import ModelConfig, parse_config
from ramify.models.decoder import Decoder
from ramify.models.fused import FusedDecoder, fold_norm
from ramify.models.kernels import gated as gated_module
from ramify.models.kernels import rms
from ramify.models.kernels import rope_store as rope_module
from ramify.models.kernels.gated import gated
from ramify.models.kernels.rope_store import rope_store
from ramify.testing.compare import assert_within_budget
from ramify.testing.fp8 import FP8

CPU = torch.device("cpu")
FIELDS: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}
LLAMA = FIELDS | {"architectures": ["LlamaForCausalLM"]}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama_tied": LLAMA | {"tie_word_embeddings": True, "head_dim": 16},
    "llama_biases": LLAMA | {"attention_bias": True, "mlp_bias": True},
    "qwen2_windows": FIELDS
    | {
        "architectures": ["Qwen2ForCausalLM"],
        "use_sliding_window": True,
        "sliding_window": 3,
        "max_window_layers": 1,
    },
    "qwen3_qk_norm": FIELDS | {"architectures": ["Qwen3ForCausalLM"], "head_dim": 24},
    "mistral": FIELDS | {"architectures": ["MistralForCausalLM"], "num_key_value_heads": 1},
}


def make_decoder(config: ModelConfig, dtype: torch.dtype, source: Decoder | None = None) -> Decoder:
    """Weights as in trained models: products keep their size, norms spread. Or `source`'s."""
    decoder = Decoder(config, dtype=dtype, device=CPU)
    generator = torch.Generator().manual_seed(3)
    others = decoder_slots(source) if source is not None else {}
    for name, slot in decoder_slots(decoder).items():
        if others:
            slot.target.copy_(others[name].target)
            continue
        noise = torch.randn(slot.shape, generator=generator)
        if name.endswith("norm.weight"):
            slot.target.copy_(1.0 + 0.3 * noise)
        else:
            slot.target.copy_(noise / (slot.shape[-1] ** 0.5 if len(slot.shape) > 1 else 5.0))
    return decoder


def steps(num_tokens: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Token ids, positions and slots of a prompt, then of one more token; slots are scattered."""
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(0, 64, (num_tokens,), generator=generator)
    slots = torch.randperm(32, generator=generator)[:num_tokens]
    every = tokens, torch.arange(num_tokens), slots
    return [tuple(part[:-1] for part in every), tuple(part[-1:] for part in every)]  # type: ignore[misc]


def run_plain(decoder: Decoder, attend: Any, num_tokens: int) -> Tensor:
    logits = []
    for tokens, positions, _ in steps(num_tokens):
        attend.begin(torch.zeros_like(positions), positions)
        logits.append(decoder.forward(tokens, positions, attend))
    return torch.cat(logits)


def run_fused(fused: FusedDecoder, attend: Any, num_tokens: int) -> Tensor:
    config, dtype = fused.config, fused.decoder.dtype
    shape = (config.num_layers, 32, config.num_kv_heads, config.head_dim)
    k_pool, v_pool = (torch.full(shape, torch.nan, dtype=dtype) for _ in range(2))
    logits = []
    for tokens, positions, slots in steps(num_tokens):
        attend.begin(torch.zeros_like(positions), positions)

        def over_pool(layer: int, q: Tensor, window: int | None, slots: Tensor = slots) -> Tensor:
            return attend(layer, q, k_pool[layer][slots], v_pool[layer][slots], window)

        logits.append(fused.forward(tokens, positions, slots, k_pool, v_pool, over_pool))
    return torch.cat(logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_err_no_more_than_the_plain_decoder(
    name: str, dtype: torch.dtype, naive_attend: Any
) -> None:
    config = parse_config(FAMILIES[name])
    decoder = make_decoder(config, dtype)
    exact = run_plain(make_decoder(config, torch.float64, decoder), naive_attend(), 6)
    plain = run_plain(decoder, naive_attend(), 6)
    got = run_fused(FusedDecoder(decoder), naive_attend(), 6)
    assert got.dtype == dtype
    assert exact.std() > 0.3  # else the budget would mean little
    assert_within_budget(got, exact, plain.to(dtype), name="logits", terms=48)
    # the decoder still means the same, with its norms folded
    again = run_plain(decoder, naive_attend(), 6)
    assert_within_budget(again, exact, plain, name="folded", factor=3.0, terms=48)


def test_logit_rows_select_and_order(naive_attend: Any) -> None:
    config = parse_config(FAMILIES["llama_biases"])
    fused = FusedDecoder(make_decoder(config, torch.float32))
    shape = (config.num_layers, 8, config.num_kv_heads, config.head_dim)
    tokens, positions, _ = steps(6)[0]
    slots = torch.tensor([5, 0, 7, 2, 1])

    def run(rows: list[int] | None) -> tuple[Tensor, Tensor]:
        k_pool, v_pool = torch.zeros(shape), torch.zeros(shape)
        attend = naive_attend()
        attend.begin(torch.zeros_like(positions), positions)

        def over_pool(layer: int, q: Tensor, window: int | None) -> Tensor:
            return attend(layer, q, k_pool[layer][slots], v_pool[layer][slots], window)

        wanted = None if rows is None else torch.tensor(rows, dtype=torch.int64)
        got = fused.forward(tokens, positions, slots, k_pool, v_pool, over_pool, wanted)
        return got, k_pool

    every, stored = run(None)
    for rows in ([4], [3, 0, 0], []):
        got, k_pool = run(rows)
        torch.testing.assert_close(got, every[rows], atol=1e-5, rtol=0.0)
        assert torch.equal(k_pool, stored)  # keys and values of every row all the same


def rope_exact(
    y: Tensor, norm: Tensor | None, table: Tensor, positions: Tensor, heads: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v in float64 of normalised projections y [rows, H, D]."""
    num_q_heads, num_kv_heads = heads
    qk, v = y.split([num_q_heads + num_kv_heads, num_kv_heads], dim=1)
    if norm is not None:
        qk = F.rms_norm(qk, qk.shape[-1:], None, 1e-5) * norm.double()
    pairs = torch.complex(*qk.chunk(2, dim=-1))
    cos, sin = table.double()[positions].chunk(2, dim=-1)
    turned = pairs * torch.complex(cos, sin)[:, None]
    q, k = torch.cat((turned.real, turned.imag), dim=-1).split([num_q_heads, num_kv_heads], dim=1)
    return q, k, v


ROPE_CASES: dict[str, tuple[int, int, int, int, torch.dtype]] = {
    # few rows, Hq, Hkv, D, dtype
    "llama": (64, 4, 2, 16, torch.float16),
    "odd": (64, 5, 1, 10, torch.float32),
    "wide": (64, 2, 2, 256, torch.float16),
    "many_rows": (0, 16, 3, 12, torch.float32),
}
UNTOUCHED = torch.tensor([0, 2, 3, 5, 7])


@pytest.mark.parametrize("has_more", [False, True], ids=["bare", "bias_and_norm"])
@pytest.mark.parametrize("case", ROPE_CASES.values(), ids=ROPE_CASES)
def test_rope_store(
    case: tuple[int, int, int, int, torch.dtype],
    has_more: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few_rows, num_q_heads, num_kv_heads, head_dim, dtype = case
    monkeypatch.setattr(rope_module, "FEW_ROWS", few_rows)
    monkeypatch.setattr(rms, "MAX_BLOCK_X", 32)  # a row of x is read in pieces
    rows, hidden, num_heads = 3, 72, num_q_heads + 2 * num_kv_heads
    x, qkv = (2 * torch.randn(rows, hidden)).to(dtype), torch.randn(rows, num_heads * head_dim)
    qkv = qkv.to(dtype)
    bias = torch.randn(num_heads * head_dim).to(dtype) if has_more else None
    norm = torch.randn(num_q_heads + num_kv_heads, head_dim).to(dtype) if has_more else None
    table = (torch.rand(9, head_dim) - 0.5).to(dtype)
    positions, slots = torch.tensor([8, 0, 3]), torch.tensor([1, 6, 4])
    k_pool, v_pool = make_pools(num_kv_heads, head_dim, dtype)
    q = torch.full((rows, num_q_heads, head_dim), torch.nan, dtype=dtype)
    rope_store(
        qkv, x, positions, slots, q=q, k_pool=k_pool, v_pool=v_pool, rotary=table, eps=1e-5,
        bias=bias, qk_norm=norm,
    )  # fmt: skip
    scale = (x.double().square().mean(dim=1, keepdim=True) + 1e-5).rsqrt()
    y = qkv.double() * scale + (0.0 if bias is None else bias.double())
    exact = rope_exact(
        y.view(rows, num_heads, head_dim), norm, table, positions, (num_q_heads, num_kv_heads)
    )
    assert_within_budget(q, exact[0], exact[0].to(dtype), name="q", factor=4.0)
    for name, pool, want in zip("kv", (k_pool, v_pool), exact[1:], strict=True):
        assert_within_budget(pool[slots], want, want.to(dtype), name=name, factor=4.0)
        assert pool[UNTOUCHED].eq(7.0).all(), name


@pytest.mark.parametrize("few_rows", [64, 0])
def test_rope_store_into_fp8_pools(few_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that fp8 holds without rounding: the interpreter rounds them in ways of its own."""
    monkeypatch.setattr(rope_module, "FEW_ROWS", few_rows)
    rows, num_q_heads, num_kv_heads, head_dim = 3, 4, 2, 10
    x, num_heads = torch.ones(rows, 32), num_q_heads + 2 * num_kv_heads
    qkv = torch.randint(-7, 8, (rows, num_heads, head_dim)).float()
    table = torch.tensor([[1.0] * 5 + [0.0] * 5, [0.0] * 5 + [1.0] * 5])  # none, a quarter turn
    positions, slots = torch.tensor([1, 0, 1]), torch.tensor([1, 6, 4])
    k_pool, v_pool = make_pools(num_kv_heads, head_dim, FP8)
    # the last scale asks for numbers beyond fp8: stored as its largest
    scales = torch.tensor([[0.5, 4.0], [2.0, 2.0**-9]])
    q = torch.empty(rows, num_q_heads, head_dim)
    rope_store(
        qkv.flatten(1), x, positions, slots, q=q, k_pool=k_pool, v_pool=v_pool, rotary=table,
        eps=0.0, k_scale=scales[0], v_scale=scales[1],
    )  # fmt: skip
    heads = num_q_heads, num_kv_heads
    exact_q, *exact = rope_exact(qkv.double(), None, table, positions, heads)
    assert torch.equal(q.double(), exact_q)
    for pool, want, scale in zip((k_pool, v_pool), exact, scales, strict=True):
        want = (want / scale[:, None]).clamp(-448.0, 448.0)
        assert torch.equal(pool[slots].double(), want)
        assert pool.float()[UNTOUCHED].eq(7.0).all()


def make_pools(num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> list[Tensor]:
    """Two pools [8, Hkv, D] full of sevens, with gaps between heads and slots."""
    shape = (8, num_kv_heads + 1, head_dim + 3)
    return [torch.full(shape, 7.0).to(dtype)[:, :num_kv_heads, :head_dim] for _ in range(2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("few_rows", [((8, 1),), ((8, 2),), ()], ids=["one", "two", "all"])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # to infinity, as it should
def test_gated(
    has_bias: bool,
    few_rows: tuple[tuple[int, int], ...],
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gated_module, "FEW_ROWS", few_rows)
    monkeypatch.setattr(gated_module, "BLOCK", 16)
    rows, hidden, inner = 3, 24, 72
    x, gate_up = torch.randn(rows, hidden).to(dtype), 3 * torch.randn(rows, 2 * inner)
    gate_up[0, :2] = torch.tensor([-300.0, 300.0])  # exp overflows, silu does not
    gate_up = gate_up.to(dtype)
    bias = torch.randn(2 * inner).to(dtype) if has_bias else None
    out = torch.full((rows, inner), torch.nan, dtype=dtype)
    gated(gate_up, x, out=out, eps=1e-5, bias=bias)
    scale = (x.double().square().mean(dim=1, keepdim=True) + 1e-5).rsqrt()
    gate, up = (gate_up.double() * scale + (0.0 if bias is None else bias.double())).chunk(2, 1)
    exact = F.silu(gate) * up
    assert_within_budget(out, exact, exact.to(dtype), name="out", factor=4.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_folding_rounds_once_and_happens_once(dtype: torch.dtype) -> None:
    weight = torch.randn(24, 40).to(dtype).t()
    norm = (1.0 + 0.3 * torch.randn(40)).to(dtype)
    exact = weight.double() * norm.double()[:, None]
    fold_norm(norm, weight)
    assert torch.equal(weight, exact.to(torch.float32).to(dtype))
    assert norm.eq(1.0).all()
    before = weight.clone()
    fold_norm(norm, weight)
    assert torch.equal(weight, before)
