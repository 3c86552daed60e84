"""What the commands under `ramify bench` may be told. Only flags live here, see options.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from ramify.cli.flags import BenchEngineFlags, EngineFlags, JsonFlag

DUMMY = "dummy"
Shapes = tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]]


@dataclass(frozen=True, kw_only=True)
class BenchOptions(JsonFlag):
    """Time decode steps: method against method, or with --shape as a user of the engine sees them.

    A step adds one token per branch.
    """

    shape: Shapes = field(
        default=(),
        metadata={"help": "time generation of prompt,branches,trees, as in 4000,20,1 64,1,1"},
    )
    compare: tuple[str, ...] = field(
        default=(), metadata={"help": "with --shape: time this peer too; there is transformers"}
    )
    methods: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "help": "attention methods; the first is what the others are compared with (default: "
            "per_branch flatten; with --shape auto)"
        },
    )
    prompt_tokens: int = field(default=2000, metadata={"help": "tokens all branches share"})
    branches: int = field(default=16, metadata={"help": "branches of the prompt"})
    new_tokens: int | None = field(
        default=None,
        metadata={"help": "tokens each branch generates (default: 64, with --shape 200)"},
    )
    workload: Path | None = field(
        default=None, metadata={"help": "replay a recorded tree of this file instead"}
    )
    tree: int = field(default=0, metadata={"help": "which complete tree of the workload"})
    scale: bool = field(
        default=False,
        metadata={"help": "shrink a recorded tree that is longer than the model's context"},
    )
    repeats: int = field(default=3, metadata={"help": "timed runs per method, interleaved"})
    seed: int = field(default=0, metadata={"help": "root seed"})
    output: Path | None = field(
        default=None, metadata={"help": "append the rows to this file, one JSON object a line"}
    )
    commit: str | None = field(
        default=None, metadata={"help": "commit of the sources, where they are a copy"}
    )
    engine: BenchEngineFlags = field(default_factory=lambda: BenchEngineFlags(model=DUMMY))


@dataclass(frozen=True, kw_only=True)
class BenchBeamOptions(JsonFlag):
    """Time a step of beam search."""

    prompt_tokens: int = field(default=2000, metadata={"help": "tokens of the prompt"})
    beam_width: tuple[int, ...] = field(default=(8,), metadata={"help": "beams, one or several"})
    new_tokens: int = field(default=32, metadata={"help": "tokens each beam generates"})
    compare: tuple[str, ...] = field(
        default=(), metadata={"help": "time this peer too; there is transformers"}
    )
    repeats: int = field(default=3, metadata={"help": "timed runs per width"})
    seed: int = field(default=0, metadata={"help": "of the prompt"})
    output: Path | None = field(
        default=None, metadata={"help": "append the rows to this file, one JSON object a line"}
    )
    commit: str | None = field(
        default=None, metadata={"help": "commit of the sources, where they are a copy"}
    )
    engine: BenchEngineFlags = field(default_factory=lambda: BenchEngineFlags(model=DUMMY))


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(JsonFlag):
    """What all attention benchmarks may be told."""

    device: str = field(default="auto", metadata={"help": "auto, cpu or cuda"})
    dtype: str = field(
        default="auto",
        metadata={"help": "auto, bfloat16, float16 or float32; auto: bfloat16 on a GPU, else 32"},
    )
    repeats: int = field(default=30, metadata={"help": "timed replays per provider, interleaved"})
    seed: int = field(default=0, metadata={"help": "of q, k and v"})
    output: Path | None = field(
        default=None, metadata={"help": "append the rows to this file, one JSON object a line"}
    )
    commit: str | None = field(
        default=None, metadata={"help": "commit of the sources, where they are a copy"}
    )


@dataclass(frozen=True, kw_only=True)
class BenchAttentionOptions(MeasureOptions):
    """Time one layer of tree attention against its floor and its peers."""

    suite: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "fasttree, deft, forest, long, flat, lean or spec (default: fasttree deft, "
            "unless shapes or a workload are given)"
        },
    )
    shape: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "nodes per level x tokens per node, as in 1,20x4000,200; ~0.1 behind it makes "
            "sizes unequal, +draft64 adds a draft tree to every leaf"
        },
    )
    heads: str = field(default="32/8", metadata={"help": "query/KV heads of shapes and workloads"})
    head_dim: int = field(default=128, metadata={"help": "dimension of a head, likewise"})
    workload: Path | None = field(
        default=None, metadata={"help": "a file of recorded trees or of recorded drafts"}
    )
    tree: int = field(default=0, metadata={"help": "which complete tree or record of the workload"})
    iteration: int = field(default=0, metadata={"help": "its decode iteration"})
    prompt_tokens: int = field(default=1000, metadata={"help": "prompt of recorded drafts"})
    providers: tuple[str, ...] = field(
        default=("ours", "peers"),
        metadata={
            "help": "ours, peers (without torch:flex, which compiles for every shape), all (with "
            "it), names such as ramify:auto flashinfer:decode ramify:fused@triton, or none (with "
            "growing_steps)"
        },
    )
    growing_steps: int = field(
        default=0,
        metadata={
            "help": "also time the host's part: so many steps of a growing tree, and plans of "
            "whole trees, by those of our providers that are named, or ramify:auto; 0: do not"
        },
    )
    growing_branches: int = field(default=1024, metadata={"help": "branches of these trees"})
    growing_nodes: int = field(default=1500, metadata={"help": "nodes of the whole trees"})
    growing_prompt: int = field(default=1000, metadata={"help": "tokens of their prompt"})
    plot: Path | None = field(default=None, metadata={"help": "picture of the times, png or svg"})


@dataclass(frozen=True, kw_only=True)
class BenchCalibrateOptions(JsonFlag):
    """Measure on this GPU the costs that the planner weighs with."""

    device: str = field(default="auto", metadata={"help": "auto or cuda; a CPU is refused"})
    backend: str = field(default="auto", metadata={"help": "attention backend to measure"})
    repeats: int = field(default=30, metadata={"help": "timed replays per forest"})
    output: Path | None = field(
        default=None, metadata={"help": "write the table and its points to this file, as JSON"}
    )
    commit: str | None = field(
        default=None, metadata={"help": "commit of the sources, where they are a copy"}
    )


@dataclass(frozen=True, kw_only=True)
class _PaperOptions(MeasureOptions):
    rows: tuple[Path, ...] = field(
        default=(), metadata={"help": "measure nothing, make the tables of these files of rows"}
    )
    page: Path | None = field(
        default=None,
        metadata={"help": "put the tables where this Markdown page marks them"},
    )


@dataclass(frozen=True, kw_only=True)
class BenchDeftOptions(_PaperOptions):
    """Count and time tree attention on the workloads of the DeFT paper."""

    workloads: Path | None = field(
        default=None, metadata={"help": "folder of DeFT's recordings; without it few-shot only"}
    )
    trees: int = field(default=10, metadata={"help": "trees of a reasoning file; 0: all complete"})
    providers: tuple[str, ...] = field(
        default=("methods", "flashinfer:decode"),
        metadata={"help": "methods (ours, each once) or names as in bench attention"},
    )
    points: int = field(
        default=32, metadata={"help": "steps timed per reasoning workload; 8 of the others"}
    )
    times_only: bool = field(default=False, metadata={"help": "do not count, which takes a minute"})


@dataclass(frozen=True, kw_only=True)
class BenchDeftEngineOptions(JsonFlag):
    """Grow the workloads of the DeFT paper by the whole engine, per branch against grouped."""

    workloads: Path | None = field(
        default=None, metadata={"help": "folder of DeFT's recordings; without it few-shot only"}
    )
    only: tuple[str, ...] = field(
        default=(), metadata={"help": "of these workloads, as in few_shot_b20 spec_t64"}
    )
    methods: tuple[str, ...] = field(
        default=("per_branch", "flatten", "fused"),
        metadata={"help": "attention methods; the first is what the others are compared with"},
    )
    trees: int = field(default=1, metadata={"help": "trees of a reasoning file"})
    longest_path: int | None = field(
        default=None,
        metadata={"help": "shorten recorded searches to paths of so many tokens, prompt included"},
    )
    prompt_tokens: int = field(default=4000, metadata={"help": "prompt of few-shot"})
    new_tokens: int = field(default=400, metadata={"help": "tokens of a few-shot branch"})
    draft_tokens: int = field(default=300, metadata={"help": "tokens to accept from drafts"})
    seed: int = field(default=0, metadata={"help": "of prompts and branches"})
    output: Path | None = field(
        default=None, metadata={"help": "append the rows to this file, one JSON object a line"}
    )
    commit: str | None = field(
        default=None, metadata={"help": "commit of the sources, where they are a copy"}
    )
    rows: tuple[Path, ...] = field(
        default=(), metadata={"help": "measure nothing, make the table of these files of rows"}
    )
    page: Path | None = field(
        default=None, metadata={"help": "put the table where this Markdown page marks it"}
    )
    engine: BenchEngineFlags = field(default_factory=lambda: BenchEngineFlags(model=DUMMY))


@dataclass(frozen=True, kw_only=True)
class BenchLeanOptions(_PaperOptions):
    """Time stream-K against a fixed split and none, by context length (suite lean)."""

    providers: tuple[str, ...] = field(
        default=("ramify:lean", "ramify:per_branch", "ramify:uncut", "flashinfer:decode"),
        metadata={"help": "names as in bench attention"},
    )


@dataclass(frozen=True, kw_only=True)
class SoakEngineFlags(EngineFlags):
    """Model and engine; a small pool is part of the load. `dummy`: a Llama of random weights."""

    num_slots: int | None = field(default=600, metadata={"help": "tokens the KV pool holds"})
    max_rows: int | None = field(
        default=64, metadata={"help": "rows a step may hold beside its decodes"}
    )
    run_ahead: bool = field(
        default=True, metadata={"help": "launch decode steps before the last tokens are read"}
    )


@dataclass(frozen=True, kw_only=True)
class BenchSoakOptions(JsonFlag):
    """Run random mixed load and look for leaks, NaN, wrong tokens and hung requests."""

    minutes: float = field(default=1.0, metadata={"help": "no round begins later"})
    seed: int = field(default=0, metadata={"help": "what the load is drawn from"})
    first_round: int = field(default=0, metadata={"help": "begin with this round of the seed"})
    rounds: int | None = field(default=None, metadata={"help": "end after so many rounds"})
    output: Path | None = field(
        default=None, metadata={"help": "append the row to this file, as a JSON object"}
    )
    commit: str | None = field(
        default=None, metadata={"help": "commit of the sources, where they are a copy"}
    )
    engine: SoakEngineFlags = field(default_factory=SoakEngineFlags)
