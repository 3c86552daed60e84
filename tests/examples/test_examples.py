"""Every example runs on the bundled model, and what it returns is checked from outside."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from ramify import LLM, load_tree
from ramify.zoo import bundled_model_dir

FOLDER = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    """The bundled model; in the end nothing of the examples is left alive."""
    llm = LLM("ramify-tiny")
    yield llm
    assert not llm.engine.live.requests and not llm.engine.cache.cursors
    llm.engine.cache.check_integrity()


def test_game_of_24(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    example = load("game_of_24")
    attempts = example.main(llm)
    for method, made in attempts.items():
        for hand, attempt in zip(example.HANDS, made, strict=True):
            assert attempt.solved == reaches(hand, example.TARGET, attempt.text), (method, hand)
    assert sum(a.solved for a in attempts["mcts"]) >= 4
    assert "mcts: " in capsys.readouterr().out


def reaches(hand: tuple[int, ...], target: int, text: str) -> bool:
    """Whether the lines of a derivation use up the hand and end at the target."""
    left = sorted(hand)
    for line in text.splitlines():
        words = line.split()
        if "left" not in words[5:6] or words[1] not in "+-*/":
            return False
        a, b, result = (int(words[place]) for place in (0, 2, 4))
        for number in (a, b):
            if number not in left:
                return False
            left.remove(number)
        if eval(f"{a} {words[1]} {b}") != result:
            return False
        left = sorted([*left, result])
        if sorted(map(int, words[6:])) != left:
            return False
    return left == [target]


def test_sorting_128_digits(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    digits, found = load("sort_128_digits").main(llm)
    assert len(digits) == 128 and found == sorted(digits)
    assert "right; 20 thoughts of 4 branches" in capsys.readouterr().out


def test_self_consistency(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    answered = load("self_consistency").main(llm)
    accuracy = np.mean([one.sample_accuracy for one in answered])
    assert accuracy < 1.0 and all(one.is_right for one in answered)
    for one in answered:
        # 16 samples of a document of hundreds of tokens, which is computed once
        usage = one.result.usage
        assert usage.computed_tokens <= usage.prompt_tokens + usage.generated_tokens
    assert "the vote 100%" in capsys.readouterr().out


def test_rl_group(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    group = load("rl_group").main(llm)
    assert group.token_ids.shape == group.mask.shape == group.logprobs.shape
    lengths = group.mask.sum(1)
    assert len(lengths) == 64 and (np.diff(group.mask.astype(int), axis=1) <= 0).all()
    # the prompt once, then every token but each sample's last, which nothing follows
    generated = int(lengths.sum())
    usage = group.usage
    assert usage.computed_tokens + usage.cached_tokens == len(group.prompt_ids) + generated - 64
    assert 0 < group.rewards.mean() < 1
    assert group.advantages.mean() == pytest.approx(0, abs=1e-5)
    assert group.advantages.std() == pytest.approx(1, abs=1e-5)
    expected = reference_logprobs(group.prompt_ids, group.token_ids, group.mask)
    np.testing.assert_allclose(group.logprobs, expected, atol=2e-3)
    assert (group.logprobs[~group.mask] == 0).all()


def reference_logprobs(prompt: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The same by transformers, every sample a row of its own with the prompt before it."""
    model = AutoModelForCausalLM.from_pretrained(bundled_model_dir("ramify-tiny")).float()
    rows = np.concatenate([np.tile(prompt, (len(tokens), 1)), tokens], axis=1)
    with torch.no_grad():
        logits = model(torch.from_numpy(rows)).logits[:, len(prompt) - 1 : -1]
    found = logits.log_softmax(-1).gather(-1, torch.from_numpy(tokens)[..., None])[..., 0]
    return np.where(mask, found.numpy(), 0.0)


def test_agent(llm: LLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = load("agent").main(llm, tmp_path)
    assert report.solved and reaches((2, 7, 8, 9), 24, report.answer)
    assert report.rewinds > 0 and report.forks > 0
    # the last token had nothing after it yet that would have had it computed
    assert report.resumed_cached_tokens >= report.resumed_prompt_tokens - 1
    tree = load_tree(tmp_path / "agent.json")
    forked = [node for node in tree.nodes if node.forked_from is not None]
    assert len(forked) == report.rewinds + report.forks
    assert tree.nodes[tree.outputs[0]].text == report.answer.splitlines(keepends=True)[-1]
    assert (tmp_path / "agent.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_readme_lists_every_example() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FOLDER.glob("*.py"):
        assert f"[{path.name}]({path.name})" in text
        assert f"    python examples/{path.name}" in path.read_text(encoding="utf-8")
