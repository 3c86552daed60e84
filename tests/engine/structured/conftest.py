"""Shared by the tests of structured output: random weights behind the bundled tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ramify import LLM
from ramify.engine.codec import Codec
from ramify.engine.structured.compile import Grammars
from ramify.models import load_tokenizer
from ramify.testing.models import save_tiny_llama
from ramify.zoo import bundled_model_dir

VOCAB, EOS = 512, 2


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It writes anything: without a grammar none of its outputs is what tests ask for."""
    path = tmp_path_factory.mktemp("random")
    save_tiny_llama(path, vocab_size=VOCAB, eos_token_id=EOS, num_layers=1, max_positions=512)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled_model_dir("ramify-tiny") / name, path)
    return path


@pytest.fixture(scope="session")
def llm(model: Path) -> Iterator[LLM]:
    """One engine for tests that need no settings of their own."""
    made = LLM(str(model), num_slots=8000, max_rows=512)
    yield made
    assert not made.engine.live.requests
    assert not made.engine.cache.cursors
    made.engine.cache.check_integrity()


@pytest.fixture(scope="session")
def codec() -> Codec:
    return Codec(load_tokenizer(bundled_model_dir("ramify-tiny")), VOCAB)


@pytest.fixture
def grammars(codec: Codec) -> Grammars:
    return Grammars(codec)
