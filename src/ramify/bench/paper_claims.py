"""The claims of Generative AI Beyond LLMs (arXiv 2312.14385), each with what was measured here.

The paper measured on an A100, with models of its own; the suite's stand for them. So what is
compared are shares and ratios.
"""

from __future__ import annotations

from collections.abc import Sequence

from ramify.bench.measured_rows import best, generations, percent
from ramify.profile.operators.kinds import CONVOLUTION, LINEAR, SPATIAL, TEMPORAL
from ramify.profile.suite import SuiteRow

DIFFUSION = ("sd15", "sdxl", "if_xl", "sr_256", "modelscope")
TRANSFORMERS = ("amused", "muse_3b", "parti_20b", "phenaki")

CONVOLUTION_CLAIM = "after flash attention, convolution takes up to 44 % of diffusion models"
LINEAR_CLAIM = "linear layers take up to 49 % of transformer models"
SPEEDUP_CLAIM = (
    "diffusion gains 1.1 to 2.5 times more from flash attention than transformers that decode"
)
TEMPORAL_CLAIM = "temporal attention takes over 60 % of attention time in video models"


def claims(rows: Sequence[SuiteRow]) -> tuple[Sequence[str], list[list[str]]]:
    """Header and lines of a table: a claim, and the rows that it is about; none without rows."""
    found = {one.name: one for one in generations(rows)}
    diffusion = [found[name] for name in DIFFUSION if name in found]
    transformers = [found[name] for name in TRANSFORMERS if name in found]
    gains = [
        f"`{one.name}` {one.speedup:.2f}"
        for one in (*diffusion, *transformers, *(found[n] for n in ("llama_7b",) if n in found))
        if one.speedup is not None
    ]
    told = {
        CONVOLUTION_CLAIM: [
            f"`{one.name}` {percent(one.share([CONVOLUTION]))}" for one in diffusion
        ],
        LINEAR_CLAIM: [f"`{one.name}` {percent(one.share([LINEAR]))}" for one in transformers],
        SPEEDUP_CLAIM: gains,
        TEMPORAL_CLAIM: _temporal(rows),
    }
    lines = [[claim, ", ".join(cells)] for claim, cells in told.items() if cells]
    return ("the paper, on an A100", "here"), lines


def _temporal(rows: Sequence[SuiteRow]) -> list[str]:
    """Temporal attention's part of self-attention's time by frames."""
    shares = []
    for row in rows:
        measured = best(row.component(row.main))
        if measured is None or not (temporal := measured.seconds.get(TEMPORAL, 0.0)):
            continue
        both = temporal + measured.seconds.get(SPATIAL, 0.0)
        shares.append((row.sizes.get("frames", 0), percent(temporal, both)))
    return [f"{frames} frames {share}" for frames, share in sorted(shares)]
