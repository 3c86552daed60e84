"""TreeAttention: choosing, counting, explaining, and every wrong argument."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from ramify.attention import HeadShape, TreeAttention
from ramify.attention.backends import open_backend, select
from ramify.attention.backends.select import _auto
from ramify.core.errors import BackendUnavailable, InputError
from ramify.core.forest import Forest
from ramify.testing.inputs import make_inputs
from ramify.testing.trees import RandomForestSpec, few_shot, random_forest


def test_backends_agree() -> None:
    case = random_forest(3, RandomForestSpec(num_rows=40))
    x = make_inputs(case)
    results = {}
    for backend in ("cpu", "reference"):
        op = TreeAttention(4, 2, 64, backend=backend)
        op.plan(case.forest)
        results[backend] = op.run(x.q, x.k, x.v)
        assert (op.backend, op.backend_reason) == (backend, "asked for")
        assert op.kv_bytes_read > 0
    for got, expected in zip(results["cpu"], results["reference"], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_counters_add_up_and_reset() -> None:
    case = few_shot(branches=4, prompt=50, generated=8)
    x = make_inputs(case)
    op = TreeAttention(4, 2, 64, method="flatten")
    op.plan(case.forest)
    for layer in range(1, 4):
        op.run(x.q, x.k, x.v)
        assert op.kv_bytes_read == layer * (50 + 4 * 8) * 2 * 2 * 64 * 4
    assert op.explain().kv_bytes_read * 3 == op.kv_bytes_read
    op.reset_counters()
    assert op.kv_bytes_read == 0
    op = TreeAttention(4, 2, 64, method="per_branch")
    op.plan(case.forest)
    op.run(x.q, x.k, x.v)
    assert op.kv_bytes_read == 4 * 58 * 2 * 2 * 64 * 4


def test_reserve_drops_the_plan_and_is_checked() -> None:
    case = few_shot(branches=4, prompt=50, generated=8)
    x = make_inputs(case)
    op = TreeAttention(4, 2, 64)
    op.plan(case.forest)
    for sizes in ({"rows": 0, "nodes": 5}, {"rows": 4, "nodes": 0}):
        with pytest.raises(InputError, match=": expected at least 1, got 0"):
            op.reserve(**sizes)
    op.run(x.q, x.k, x.v)  # refused sizes change nothing
    op.reserve(rows=4, nodes=5)
    with pytest.raises(InputError, match=r"expected plan\(forest\) first"):
        op.run(x.q, x.k, x.v)
    op.plan(case.forest)
    op.run(x.q, x.k, x.v)


def test_auto_says_why() -> None:
    op = TreeAttention(4, 2, 64)
    assert (op.backend, op.backend_reason) == ("cpu", "auto: the device is a CPU")
    op.plan(few_shot().forest)
    report = op.explain()
    assert report.method == "flatten" and "sharing pays" in report.why


def test_a_fallback_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    _auto.cache_clear()
    heads = TreeAttention(4, 2, 64).heads
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            backend, reason = open_backend("auto", heads, torch.device("meta"))
    assert backend.name == "reference" and "no kernel for device meta" in reason
    assert len(caplog.records) == 1 and "no kernel for device meta" in caplog.text


def test_backends_of_later_versions_are_unavailable() -> None:
    with pytest.raises(BackendUnavailable, match="'flashinfer' is unavailable: .*cpu, reference"):
        TreeAttention(4, 2, 64, backend="flashinfer")


def test_triton_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(select, "find_spec", lambda name: object())
    with pytest.raises(BackendUnavailable, match="expected device cuda, got cpu"):
        TreeAttention(4, 2, 64, backend="triton")
    monkeypatch.setattr(select, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match="the package triton is not installed"):
        TreeAttention(4, 2, 64, device="cuda", backend="triton")


def test_auto_on_a_gpu_takes_the_best_that_runs_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heads = TreeAttention(4, 2, 64).heads
    half, double = replace(heads, itemsize=2), replace(heads, itemsize=8)
    cuda = torch.device("cuda")
    opened = []
    monkeypatch.setattr(select, "_open_hopper", lambda *args: opened.append(args))
    monkeypatch.setattr(select, "find_spec", lambda name: object())
    _auto.cache_clear()
    assert _auto(cuda, half) == ("hopper", "auto: the device is a Hopper GPU")
    assert opened == [(half, cuda)]

    def refuse(heads: HeadShape, device: torch.device) -> None:
        raise BackendUnavailable("hopper", "expected another GPU")

    monkeypatch.setattr(select, "_open_hopper", refuse)
    _auto.cache_clear()
    why = "auto: expected another GPU for backend hopper"
    with caplog.at_level(logging.INFO):
        assert _auto(cuda, half) == ("triton", why)
    assert f"runs on the triton backend ({why})" in caplog.text
    assert _auto(cuda, double) == ("reference", "auto: float64")
    monkeypatch.setattr(select, "find_spec", lambda name: None)
    _auto.cache_clear()
    assert _auto(cuda, half) == ("reference", "auto: the package triton is not installed")
    _auto.cache_clear()
    assert "slow reference backend" in caplog.text


def test_hopper_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = HeadShape(num_q_heads=4, num_kv_heads=2, head_dim=64, itemsize=2)
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    refused = {
        "expected device cuda, got cpu": (heads, torch.device("cpu")),
        "expected 16 bit elements, got 32": (replace(heads, itemsize=4), cuda),
        r"expected head_dim of \(32, 64, 96, 128\) .*got 256 and 2": (
            replace(heads, head_dim=256),
            cuda,
        ),
        "at most 64 query heads a KV head, got 64 and 65": (replace(heads, num_q_heads=130), cuda),
    }
    for message, (shape, device) in refused.items():
        with pytest.raises(BackendUnavailable, match=message):
            open_backend("hopper", shape, device)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (10, 0))
    with pytest.raises(BackendUnavailable, match=r"expected compute capability 9.0, got \(10, 0\)"):
        open_backend("hopper", heads, cuda)


def test_advance_is_for_backends_that_know_growth() -> None:
    op = TreeAttention(4, 2, 64)
    with pytest.raises(InputError, match=r"expected plan\(forest\) first, got no plan yet"):
        op.advance()
    op.plan(few_shot().forest)
    assert not op.advance()


def test_fixed_cuts_reach_the_planner() -> None:
    forest = few_shot(branches=2, prompt=500, generated=5).forest
    op = TreeAttention(4, 2, 64, method="lean", fixed_cuts=128)
    assert op.plan(forest).piece_len.tolist() == [128, 128, 128, 116, 5] * 2
    even = TreeAttention(4, 2, 64, method="lean").plan(forest)
    assert even.num_items != 8


def test_the_cpu_backend_wants_a_cpu() -> None:
    with pytest.raises(BackendUnavailable, match="expected device cpu, got meta"):
        TreeAttention(4, 2, 64, device="meta", backend="cpu")


BAD_ARGUMENTS = {
    "method": ({"method": "leaf"}, r"method: expected auto, per_branch, lean.*got 'leaf'"),
    "backend": (
        {"backend": "gpu"},
        r"backend: expected auto, hopper, triton, cpu, reference, got 'gpu'",
    ),
    "heads": ({"num_q_heads": 5}, r"num_q_heads: expected a multiple of num_kv_heads = 2, got 5"),
    "no_heads": ({"num_q_heads": 0}, r"num_q_heads: expected .*got 0"),
    "kv_heads": ({"num_kv_heads": 0}, r"num_kv_heads: expected at least 1, got 0"),
    "odd_dim": ({"head_dim": 63}, r"head_dim: expected an even number.*got 63"),
    "dtype": ({"dtype": torch.int32}, r"dtype: expected torch.bfloat16.*got torch.int32"),
    "softcap": ({"softcap": 0.0}, r"softcap: expected None or above 0, got 0.0"),
    "scale": ({"scale": float("inf")}, r"scale: expected a finite number above 0, got inf"),
    "no_scale": ({"scale": 0.0}, r"scale: expected a finite number above 0, got 0.0"),
    "minus": ({"scale": -1.0}, r"scale: expected a finite number above 0, got -1.0"),
    "cuts": ({"fixed_cuts": 63}, r"fixed_cuts: expected None or at least 64 tokens, got 63"),
}


@pytest.mark.parametrize("change, message", BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments(change: dict, message: str) -> None:
    good = {"num_q_heads": 4, "num_kv_heads": 2, "head_dim": 64}
    with pytest.raises(InputError, match=message):
        TreeAttention(**{**good, **change})


def test_bad_inputs_name_both_sides() -> None:
    case = few_shot(branches=2, prompt=6, generated=3)
    x = make_inputs(case)
    op = TreeAttention(4, 2, 64)
    for call in (lambda: op.run(x.q, x.k, x.v), op.explain):
        with pytest.raises(InputError, match=r"expected plan\(forest\) first, got no plan yet"):
            call()
    op.plan(case.forest)
    bad = {
        r"q: expected shape \[2, 4, 64\], got \[1, 4, 64\]": (x.q[:1], x.k, x.v),
        r"k: expected shape \[num_slots, 2, 64\], got \[15, 1, 64\]": (x.q, x.k[:, :1], x.v),
        r"v: expected shape \[num_slots, 2, 64\], got \[15, 128\]": (x.q, x.k, x.v.flatten(1)),
        r"k: expected 14 slots or more, got 9": (x.q, x.k[:9], x.v[:9]),
        r"q: expected torch.float32, got torch.float64": (x.q.double(), x.k, x.v),
        r"v: expected torch.float32, got torch.bfloat16": (x.q, x.k, x.v.bfloat16()),
        r"k: expected device cpu, got meta": (x.q, x.k.to("meta"), x.v),
    }
    for message, (q, k, v) in bad.items():
        with pytest.raises(InputError, match=message):
            op.run(q, k, v)
    with pytest.raises(InputError, match=r"window: expected None or at least 1, got 0"):
        op.run(x.q, x.k, x.v, window=0)
    assert op.kv_bytes_read == 0
    op.run(x.q, x.k, x.v)


def test_rows_that_see_nothing() -> None:
    forest = Forest.from_nodes([-1, -1], [3, 0], [0, 3], [1, 0, 0], [0, 3, 0])
    for backend in ("cpu", "reference"):
        for method in ("per_branch", "flatten"):
            op = TreeAttention(2, 1, 8, method=method, backend=backend)
            op.plan(forest)
            out, lse = op.run(torch.ones(3, 2, 8), torch.ones(4, 1, 8), torch.ones(4, 1, 8))
            assert out[1].eq(1).all() and out[[0, 2]].eq(0).all()
            assert lse[1].isfinite().all() and lse[[0, 2]].eq(-torch.inf).all()


def test_no_rows_at_all() -> None:
    op = TreeAttention(2, 1, 8)
    op.plan(Forest.from_nodes([-1], [3], [0], []))
    out, lse = op.run(torch.ones(0, 2, 8), torch.ones(4, 1, 8), torch.ones(4, 1, 8))
    assert out.shape == (0, 2, 8) and lse.shape == (0, 2)
