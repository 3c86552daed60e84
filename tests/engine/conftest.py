"""Shared by the engine's tests: tiny models on disk and engines over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM

from ramify import LLM
from ramify.testing.models import save_byte_tokenizer, save_tiny_llama


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlamaForCausalLM]:
    """A model without a tokenizer or end token, and transformers' own copy of it."""
    path = tmp_path_factory.mktemp("tiny")
    return path, save_tiny_llama(path)


@pytest.fixture(scope="session")
def bytes_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model over single bytes, with a tokenizer."""
    path = tmp_path_factory.mktemp("bytes")
    save_tiny_llama(path, vocab_size=256, seed=1)
    save_byte_tokenizer(path)
    return path


@pytest.fixture(params=[False, True], ids=["waiting", "ahead"])
def make_llm(
    tiny: tuple[Path, LlamaForCausalLM], request: pytest.FixtureRequest
) -> Iterator[Callable[..., LLM]]:
    """Build engines on the tiny model; at the end each must be sound and leak nothing.

    Every test runs twice: once each step is waited for, once decode steps run ahead.
    """
    made: list[LLM] = []

    def make(path: Path | None = None, **settings: object) -> LLM:
        settings.setdefault("num_slots", 600)
        settings.setdefault("run_ahead", request.param)
        made.append(LLM(str(path or tiny[0]), **settings))
        return made[-1]

    yield make
    for llm in made:
        assert_nothing_leaks(llm)


def assert_nothing_leaks(llm: LLM) -> None:
    """Every slot is free, reserved or cached once all requests are over."""
    assert not llm.engine.live.requests, "a request is still alive"
    cache = llm.engine.cache
    assert not cache.cursors, "a path is still open"
    cache.check_integrity()
    assert cache.available == llm.engine.limits.num_slots
    cache.evict(llm.engine.limits.num_slots)
    assert cache.num_free + cache.num_reserved == llm.engine.limits.num_slots
    cache.check_integrity()
