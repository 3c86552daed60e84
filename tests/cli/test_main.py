"""Parsing, errors and exit codes, the same for all commands."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ramify.cli import generate
from ramify.cli.main import COMMANDS, main


def test_help_lists_every_command_on_a_line(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for module in COMMANDS.values():
        name = module.rpartition(".")[2].partition("_")[0]  # bench_attention is below bench
        assert sum(f"• {name} " in line for line in lines) == 1


def test_no_command_shows_the_help(capsys):
    assert main([]) == 0
    assert "subcommands" in capsys.readouterr().out


def test_help_loads_neither_torch_nor_transformers():
    code = (
        "import sys; from ramify.cli.main import main; main(['run', '--help']); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "argv", [["runn"], ["run", "--count", "x"], ["plan", "--no-such-flag"]], ids=" ".join
)
def test_usage_errors_exit_with_2(argv, capsys):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err


def test_an_error_with_json_is_a_document_too(run_json):
    document = run_json("plan", "--shape", "1,2x3", code=2)
    assert document["error"]["type"] == "InputError"
    assert "shape: expected" in document["error"]["message"]


def test_ctrl_c_exits_with_130(monkeypatch, capsys):
    def interrupt(options, out):
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "execute", interrupt)
    assert main(["generate", "--prompt", "x"]) == 130
    assert capsys.readouterr().err == "ramify: interrupted\n"


def test_an_unknown_model_is_one_line(fails):
    line = fails("generate", "--prompt", "x", "--model", "./no-such-model")
    assert "no-such-model" in line


def test_engine_flags_are_checked_by_the_config(fails):
    line = fails("generate", "--prompt", "x", "--method", "fast")
    assert line.startswith("ramify: error: method: expected one of auto")


def test_module_entry_point():
    done = subprocess.run(
        [sys.executable, "-m", "ramify.cli", "plan", "--shape", "1,2x8,4", "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tree"] == "1,2x8,4"
