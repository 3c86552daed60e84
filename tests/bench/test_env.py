"""The environment stamp."""

from __future__ import annotations

import platform
import subprocess

import torch

from ramify.bench.env import environment


def test_stamp_names_this_machine():
    stamp = environment()
    assert stamp.python == platform.python_version()
    assert stamp.libraries["torch"] == torch.__version__
    assert stamp.num_cores >= 1 and stamp.cpu and stamp.command


def test_commands_name_no_place_of_the_machine(monkeypatch):
    argv = ["/opt/x/bin/ramify", "bench", "--shape", "64,1,1", "--output", "/home/me/rows.jsonl"]
    monkeypatch.setattr("sys.argv", [*argv, "--plot", "out/a b.svg"])
    wanted = "ramify bench --shape 64,1,1 --output rows.jsonl --plot 'out/a b.svg'"
    assert environment().command == wanted


def test_commit_is_the_checkouts():
    stamp = environment()
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    if done.returncode == 0 and stamp.commit is not None:
        assert len(stamp.commit) == 40 and stamp.is_dirty in (True, False)


def test_a_commit_that_is_said_is_the_commit(monkeypatch):
    """A copy of the sources may lie in another checkout, of which git then speaks."""
    monkeypatch.setattr("ramify.bench.env._git_state", lambda: ("def", True))
    said, found = environment("abc"), environment()
    assert (said.commit, said.is_dirty) == ("abc", None)
    assert (found.commit, found.is_dirty) == ("def", True)
    monkeypatch.setattr("ramify.bench.env._git_state", lambda: (None, None))
    assert environment("abc").commit == "abc" and environment().commit is None
