"""What decode benchmarks run, and what each step must read: counted from the shape alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ramify.core.errors import InputError, expected_got
from ramify.core.params import SamplingParams
from ramify.search.controller import Controller
from ramify.search.recorded import RecordedTree
from ramify.search.replay import Replay
from ramify.search.sample import Sample


class DecodeWorkload(Protocol):
    """A tree to grow. Step 0 ends the prefill and samples the first tokens; steps 1.. decode."""

    @property
    def name(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def num_steps(self) -> int: ...
    @property
    def longest_path(self) -> int:
        """Tokens of the longest path at any time."""
        ...

    def controller(self) -> Controller:
        """A fresh controller that grows the tree."""
        ...

    def kv_tokens_at(self, step: int, *, is_grouped: bool) -> int:
        """Tokens whose KV a decode step reads: each once when grouped, else once per row."""
        ...


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """Branches of one prompt, all growing to the same length.

    In step j every branch computes its j-th new token and samples the next one.
    """

    prompt_tokens: int
    branches: int
    new_tokens: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("prompt_tokens", 1), ("branches", 1), ("new_tokens", 2)):
            if getattr(self, name) < least:
                raise InputError(expected_got(name, f"at least {least}", getattr(self, name)))

    @property
    def name(self) -> str:
        return f"{self.prompt_tokens} shared + {self.branches} x {self.new_tokens}"

    @property
    def num_steps(self) -> int:
        return self.new_tokens - 1

    @property
    def longest_path(self) -> int:
        return self.prompt_tokens + self.new_tokens

    def controller(self) -> Controller:
        return Sample(
            SamplingParams(
                n=self.branches, max_tokens=self.new_tokens, ignore_eos=True, seed=self.seed
            )
        )

    def kv_tokens_at(self, step: int, *, is_grouped: bool) -> int:
        if is_grouped:
            return self.prompt_tokens + self.branches * step
        return self.branches * (self.prompt_tokens + step)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A recorded search tree: nodes branch and are cut at the recorded iterations."""

    tree: RecordedTree
    title: str
    seed: int = 0

    @property
    def name(self) -> str:
        return self.title

    @property
    def prompt_tokens(self) -> int:
        return self.tree.root.value

    @property
    def num_steps(self) -> int:
        return self.tree.num_iterations - 1

    @property
    def longest_path(self) -> int:
        return self.tree.longest_path

    def controller(self) -> Controller:
        return Replay(self.tree, SamplingParams(ignore_eos=True, seed=self.seed))

    def kv_tokens_at(self, step: int, *, is_grouped: bool) -> int:
        if is_grouped:
            return self.tree.live_tokens_at(step)
        # paths have no gaps, so all rows of a step stand at the same position
        return self.tree.rows_at(step) * (self.prompt_tokens + step)
