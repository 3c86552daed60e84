"""What each command may be told. Only flags live here, so that `ramify --help` loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ramify.cli.bench_options import (
    BenchAttentionOptions,
    BenchBeamOptions,
    BenchCalibrateOptions,
    BenchDeftEngineOptions,
    BenchDeftOptions,
    BenchLeanOptions,
    BenchOptions,
    BenchSoakOptions,
)
from ramify.cli.bench_tree_options import BenchSearchOptions, BenchSpeculationOptions
from ramify.cli.flags import EngineFlags, JsonFlag, SamplingFlags, StructuredFlags
from ramify.cli.profile_options import (
    ProfileCompareOptions,
    ProfileModelOptions,
    ProfileOptions,
    ProfileRenderOptions,
    ProfileSuiteOptions,
)


@dataclass(frozen=True, kw_only=True)
class RunOptions(JsonFlag):
    """Search on a prompt or on tasks, with a live tree."""

    prompt: tuple[str, ...] = field(default=(), metadata={"help": "prompts to search on"})
    task: str | None = field(
        default=None, metadata={"help": "bundled problems: puzzle, sort, merge or documents"}
    )
    task_file: Path | None = field(
        default=None, metadata={"help": "problems as JSON lines with task and prompt"}
    )
    count: int | None = field(
        default=None, metadata={"help": "problems to take; default 1 of a task, all of a file"}
    )
    skip: int = field(default=0, metadata={"help": "problems to leave out at the start"})
    algorithm: str | None = field(
        default=None,
        metadata={
            "help": "tot, tot_dfs, dvts, rebase, mcts, smc, best_of_n, self_consistency, beam, "
            "diverse_beam, sample or got (sort only); default tot for tasks, best_of_n for prompts"
        },
    )
    k: tuple[int, ...] | None = field(
        default=None, metadata={"help": "samples; branches of a node, also level by level: 4 2 1"}
    )
    width: int | None = field(default=None, metadata={"help": "nodes or beams kept at each level"})
    depth: int | None = field(default=None, metadata={"help": "levels of a tree of thoughts"})
    temperature: float | None = field(default=None, metadata={"help": "of the sampled steps"})
    max_tokens: int | None = field(default=None, metadata={"help": "tokens of a branch or a step"})
    stop: tuple[str, ...] | None = field(
        default=None, metadata={"help": r"strings that end a branch or a step; \n is understood"}
    )
    budget_tokens: int | None = field(
        default=None, metadata={"help": "tokens one search may generate"}
    )
    no_judge: bool = field(
        default=False, metadata={"help": "rank by log-probability, do not ask the model"}
    )
    seed: int = field(default=0, metadata={"help": "root seed of every search"})
    height: int = field(default=24, metadata={"help": "lines a tree may take in the terminal"})
    quiet: bool = field(default=False, metadata={"help": "no trees, only answers and the summary"})
    export: Path | None = field(
        default=None,
        metadata={"help": "write the tree here: JSON for ramify show, or a page (.html)"},
    )
    engine: EngineFlags = field(default_factory=EngineFlags)


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(JsonFlag):
    """Continue prompts and stream the text."""

    prompt: tuple[str, ...] = field(default=(), metadata={"help": "prompts to continue"})
    prompt_file: Path | None = field(
        default=None, metadata={"help": "a text file that is one more prompt"}
    )
    export: Path | None = field(
        default=None,
        metadata={"help": "write the tree here: JSON for ramify show, or a page (.html)"},
    )
    structured: StructuredFlags = field(default_factory=StructuredFlags)
    engine: EngineFlags = field(default_factory=EngineFlags)
    sampling: SamplingFlags = field(default_factory=SamplingFlags)


@dataclass(frozen=True, kw_only=True)
class ShowOptions(JsonFlag):
    """Draw a tree that was exported, here or as a page."""

    tree: tyro.conf.Positional[Path] = field(metadata={"help": "a file written by --export"})
    output: Path | None = field(
        default=None, metadata={"help": "also write it here: a page if it ends in .html"}
    )
    height: int = field(default=40, metadata={"help": "lines the tree may take in the terminal"})


@dataclass(frozen=True, kw_only=True)
class PlanOptions(JsonFlag):
    """Show the attention plan of a tree, its cost and why, beside what a run of it takes."""

    explain: bool = field(
        default=False,
        metadata={"help": "list the items of each plan as well; on a GPU also run and measure it"},
    )
    measure: bool = field(
        default=False, metadata={"help": "run the plans on random tensors, on a CPU too"}
    )
    no_measure: bool = field(default=False, metadata={"help": "run nothing"})
    repeats: int = field(default=30, metadata={"help": "timed runs per plan"})
    shape: str | None = field(
        default=None,
        metadata={
            "help": "few_shot, chains, beam, thoughts, speculative or prefill; or nodes per level "
            "x tokens per node, as in 1,20x4000,200 (default: few_shot)"
        },
    )
    workload: Path | None = field(
        default=None, metadata={"help": "a file of recorded trees instead of a shape"}
    )
    tree: int = field(default=0, metadata={"help": "which complete tree of the workload"})
    iteration: int = field(default=0, metadata={"help": "its decode iteration"})
    method: str = field(
        default="all",
        metadata={"help": "auto, per_branch, lean, node, node_chunk, flatten, fused or all"},
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu or cuda"})
    backend: str = field(default="auto", metadata={"help": "attention backend to plan for"})
    q_heads: int = field(default=32, metadata={"help": "query heads"})
    kv_heads: int = field(default=8, metadata={"help": "KV heads"})
    head_dim: int = field(default=128, metadata={"help": "dimension of a head"})
    dtype: str = field(
        default="auto",
        metadata={
            "help": "auto, bfloat16, float16, float32 or float64; auto: what has itemsize bytes"
        },
    )
    itemsize: int | None = field(
        default=None,
        metadata={
            "help": "bytes of a stored element of K and V: 1 (fp8), 2, 4 or 8 (default: of dtype)"
        },
    )
    block_tokens: int = field(default=128, metadata={"help": "block of node_chunk and flatten"})
    bandwidth_gbs: float = field(
        default=20.0,
        metadata={
            "help": "memory bandwidth behind the predicted time, GB/s, where a backend has no "
            "cost table"
        },
    )
    max_items: int = field(default=12, metadata={"help": "items listed per plan"})


@dataclass(frozen=True, kw_only=True)
class InfoOptions(JsonFlag):
    """Show versions, devices, backends, facts of a model."""

    model: str | None = field(
        default=None, metadata={"help": "bundled name, directory, hub id, or a dummy as in bench"}
    )
    start: bool = field(
        default=False, metadata={"help": "also load the model and show what the start takes"}
    )
    backend: str = field(default="auto", metadata={"help": "attention backend to ask for"})


_sub = tyro.conf.subcommand
_Bench = Annotated[
    Annotated[BenchOptions, _sub("decode", prefix_name=False)]
    | Annotated[BenchBeamOptions, _sub("beam", prefix_name=False)]
    | Annotated[BenchAttentionOptions, _sub("attention", prefix_name=False)]
    | Annotated[BenchCalibrateOptions, _sub("calibrate", prefix_name=False)]
    | Annotated[BenchDeftOptions, _sub("deft", prefix_name=False)]
    | Annotated[BenchDeftEngineOptions, _sub("deft-engine", prefix_name=False)]
    | Annotated[BenchLeanOptions, _sub("lean", prefix_name=False)]
    | Annotated[BenchSearchOptions, _sub("search", prefix_name=False)]
    | Annotated[BenchSoakOptions, _sub("soak", prefix_name=False)]
    | Annotated[BenchSpeculationOptions, _sub("speculation", prefix_name=False)],
    _sub("bench", prefix_name=False, description="Measure decoding, or attention alone."),
]
_Profile = Annotated[
    Annotated[ProfileOptions, _sub("step", prefix_name=False)]
    | Annotated[ProfileModelOptions, _sub("model", prefix_name=False)]
    | Annotated[ProfileSuiteOptions, _sub("suite", prefix_name=False)]
    | Annotated[ProfileCompareOptions, _sub("compare", prefix_name=False)]
    | Annotated[ProfileRenderOptions, _sub("render", prefix_name=False)],
    _sub("profile", prefix_name=False, description="Where time goes: in a step, in a model."),
]
Options = (
    Annotated[RunOptions, _sub("run", prefix_name=False)]
    | Annotated[GenerateOptions, _sub("generate", prefix_name=False)]
    | Annotated[ShowOptions, _sub("show", prefix_name=False)]
    | Annotated[PlanOptions, _sub("plan", prefix_name=False)]
    | _Bench
    | _Profile
    | Annotated[InfoOptions, _sub("info", prefix_name=False)]
)
