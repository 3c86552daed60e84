"""Rows of `ramify bench deft-engine`: one method on one workload, through the whole engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ramify.bench.env import Environment
from ramify.bench.rows import read_rows_of


@dataclass(frozen=True, kw_only=True)
class DeftEngineRow:
    """Sums over all trees of a workload, each grown once after a warm-up."""

    question: str  # always "deft_engine"
    workload: str
    model: str
    method: str
    backend: str
    device: str
    dtype: str
    baseline: str  # the method that tokens are compared with
    num_trees: int
    longest_path: int  # tokens; less than recorded where a search was shortened
    num_steps: int  # after the prefill
    num_graph_steps: int  # of these, replayed as CUDA graphs
    num_tokens: int  # generated, or accepted of drafts
    prefill_s: float  # from the prompt to all first tokens
    decode_s: float  # from there to the end: trees, plans, the model, drawing tokens
    device_s: float  # of decode_s, the device at a forward pass (ahead of the host, with drawing)
    plan_s: float  # of decode_s, the host planning attention, whether the device waited or not
    num_nodes: int
    num_nodes_apart: int  # whose tokens are not the baseline's, as rounding differs
    environment: Environment

    @property
    def end_to_end_s(self) -> float:
        """From the prompt to the last token."""
        return self.prefill_s + self.decode_s

    @property
    def step_ms(self) -> float:
        """A step after the prefill, on average."""
        return self.decode_s / self.num_steps * 1e3

    @property
    def host_ms(self) -> float:
        """Of such a step, what the device spent on no forward pass: waiting for the host."""
        return (self.decode_s - self.device_s) / self.num_steps * 1e3

    @property
    def plan_ms(self) -> float:
        """Of such a step, planning on the host."""
        return self.plan_s / self.num_steps * 1e3


def read_json(path: Path) -> list[DeftEngineRow]:
    """The rows of this kind in a file of JSON lines."""
    return read_rows_of(path, DeftEngineRow, "deft_engine")
