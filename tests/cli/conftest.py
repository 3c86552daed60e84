"""A tiny model with a tokenizer, and a way to run a command and read its JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ramify.cli.main import main
from ramify.testing.models import save_byte_tokenizer, save_tiny_llama


@pytest.fixture(scope="session")
def bytes_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model over single bytes."""
    path = tmp_path_factory.mktemp("bytes")
    save_tiny_llama(path, vocab_size=256, seed=1)
    save_byte_tokenizer(path)
    return str(path)


@pytest.fixture
def run_json(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command with --json; its stdout must be exactly one document."""

    def run(*argv: str, code: int = 0) -> Any:
        assert main([*argv, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must end with exit code 2 and one line on stderr; returns the line."""

    def run(*argv: str) -> str:
        assert main(list(argv)) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1, captured.err
        assert "Traceback" not in captured.err
        return captured.err

    return run


@pytest.fixture
def puzzle_file(tmp_path: Path) -> Path:
    """Two puzzles as a task file."""
    path = tmp_path / "problems.jsonl"
    prompts = ["puzzle 4 7 8 2 -> 24\n", "puzzle 1 2 3 4 -> 10\n"]
    path.write_text("".join(json.dumps({"task": "puzzle", "prompt": p}) + "\n" for p in prompts))
    return path
