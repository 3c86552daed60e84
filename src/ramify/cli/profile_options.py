"""What the commands under `ramify profile` may be told. Only flags live here, see options.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from ramify.cli.bench_options import DUMMY
from ramify.cli.flags import BenchEngineFlags, JsonFlag

RunMode = Literal["eager", "graphs", "compiled"]  # those of profile.runs, which loads torch


@dataclass(frozen=True, kw_only=True)
class ProfileOptions(JsonFlag):
    """Trace steady decode steps and show where their time goes."""

    shape: str = field(
        default="2000,16,1", metadata={"help": "prompt,branches,trees, as in 4000,20,1"}
    )
    method: str = field(default="auto", metadata={"help": "attention method"})
    steps: int = field(default=16, metadata={"help": "steps under the profiler"})
    timed_steps: int = field(default=64, metadata={"help": "steps before them, by the clock alone"})
    trace: Path = field(
        default=Path("trace.json.gz"),
        metadata={"help": "where the trace goes, .json or .json.gz"},
    )
    seed: int = field(default=0, metadata={"help": "root seed"})
    commit: str | None = field(
        default=None, metadata={"help": "commit of the sources, where they are a copy"}
    )
    engine: BenchEngineFlags = field(default_factory=lambda: BenchEngineFlags(model=DUMMY))


@dataclass(frozen=True, kw_only=True)
class MeasureFlags:
    """How passes are measured."""

    measure: Literal["no", "flash", "naive", "both"] = field(
        default="no",
        metadata={
            "help": "also run it with random weights and time it: attention as torch "
            "chooses, by its math backend, or both"
        },
    )
    device: str = field(default="cpu", metadata={"help": "where it is measured: cpu or cuda"})
    run: tuple[RunMode, ...] = field(
        default=(),
        metadata={"help": "how it runs; default eager, in a suite on cuda eager and graphs"},
    )
    repeats: int = field(default=5, metadata={"help": "measured runs"})
    trace: Path | None = field(
        default=None, metadata={"help": "a directory for a trace of one pass each, for Perfetto"}
    )
    trace_megabytes: float = field(
        default=50.0, metadata={"help": "of each trace at most, unpacked; short events are cut"}
    )


@dataclass(frozen=True, kw_only=True)
class ProfileModelOptions(MeasureFlags, JsonFlag):
    """Show where time, bytes and sequence length go in a model, without weights or a GPU."""

    target: tyro.conf.Positional[str] = field(
        metadata={"help": "a preset, as `ramify profile suite` lists them, or a config directory"}
    )
    hardware: str = field(default="h200", metadata={"help": "roofline: h200, h100, a100 or cpu"})
    steps: int | None = field(default=None, metadata={"help": "denoising steps"})
    no_guidance: bool = field(default=False, metadata={"help": "no classifier-free guidance"})
    batch: int = field(default=1, metadata={"help": "samples at once"})
    size: tuple[str, ...] = field(
        default=(), metadata={"help": "sizes as in side=1024 frames=32 prompt_tokens=4096"}
    )
    sweep: tuple[str, ...] = field(
        default=(), metadata={"help": "a size and its values: side 256 512 1024, or batch 1 2 4"}
    )
    component: tuple[str, ...] = field(
        default=(), metadata={"help": "only these components; default all"}
    )
    trace_lengths: bool = field(
        default=False, metadata={"help": "also list the sequence length of every attention"}
    )
    output: Path | None = field(default=None, metadata={"help": "write the report as JSON"})
    html: Path | None = field(default=None, metadata={"help": "write the report as one page"})


@dataclass(frozen=True, kw_only=True)
class ProfileSuiteOptions(MeasureFlags, JsonFlag):
    """Every preset in one table: image, video and language models side by side."""

    preset: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "only these presets or config directories; default all, and with --measure "
            "those that stand for the models of the paper"
        },
    )
    batch: int = field(default=1, metadata={"help": "samples at once"})
    hardware: str = field(default="h200", metadata={"help": "roofline: h200, h100, a100 or cpu"})
    output: Path | None = field(
        default=None,
        metadata={"help": "a directory for suite.json and the reports as JSON and as pages"},
    )
    rows: tuple[Path, ...] = field(
        default=(), metadata={"help": "run nothing, read these suite.json"}
    )
    page: Path | None = field(
        default=None, metadata={"help": "fill this page's tables of measurements"}
    )
    commit: str | None = field(
        default=None, metadata={"help": "commit of the sources, where they are a copy"}
    )


@dataclass(frozen=True, kw_only=True)
class ProfileCompareOptions(JsonFlag):
    """Two models, or two saved reports, kind by kind."""

    first: tyro.conf.Positional[str] = field(
        metadata={"help": "a preset, a config directory, or a report.json"}
    )
    second: tyro.conf.Positional[str] = field(metadata={"help": "what it is compared with"})
    hardware: str = field(default="h200", metadata={"help": "roofline: h200, h100, a100 or cpu"})


@dataclass(frozen=True, kw_only=True)
class ProfileRenderOptions(JsonFlag):
    """Draw the page of a saved report, from its JSON alone."""

    report: tyro.conf.Positional[Path] = field(metadata={"help": "a report.json"})
    html: Path = field(metadata={"help": "where the page goes"})
    ncu: Path | None = field(
        default=None,
        metadata={"help": "a CSV of `ncu --csv --page raw`: adds cache hit rates by kind"},
    )
    output: Path | None = field(
        default=None, metadata={"help": "write the report with them as JSON"}
    )
