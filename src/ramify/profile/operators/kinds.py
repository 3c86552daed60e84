"""The taxonomy: every operator is of one kind, in tables, JSON and pictures alike.

After the operator breakdown of Generative AI Beyond LLMs (arXiv 2312.14385), with attention told
apart by what it attends over.
"""

from __future__ import annotations

SPATIAL = "attention spatial"
TEMPORAL = "attention temporal"
CROSS = "attention cross"
PREFILL = "attention causal prefill"
DECODE = "attention decode"
CONVOLUTION = "convolution"
LINEAR = "linear"
GROUP_NORM = "group norm"
NORM = "norm"
ELEMENTWISE = "elementwise/copy"
EMBEDDING = "embedding"
COMMUNICATION = "communication"
UNKNOWN = "unknown"

MEANINGS = {
    SPATIAL: "self-attention over all positions at once: pixels, patches, frames x patches, text",
    TEMPORAL: "self-attention over the frames of one position",
    CROSS: "queries of one sequence, keys of another",
    PREFILL: "causal self-attention of several queries",
    DECODE: "one query per sequence over the keys before it",
    CONVOLUTION: "convolutions of any dimension",
    LINEAR: "products with a weight",
    GROUP_NORM: "group normalisation",
    NORM: "layer, RMS and batch normalisation",
    ELEMENTWISE: "arithmetic per element, reductions, copies, resizing, indexing",
    EMBEDDING: "rows taken from a table",
    COMMUNICATION: "collectives between devices",
    UNKNOWN: "an operator without a formula; its bytes count, its FLOPs do not",
}
KINDS = tuple(MEANINGS)
"""All kinds, as tables list them."""

ATTENTION = (SPATIAL, TEMPORAL, CROSS, PREFILL, DECODE)
SELF_ATTENTION = (SPATIAL, TEMPORAL, PREFILL, DECODE)
FUSABLE = (ELEMENTWISE,)
"""What a compiler can move into the operator before it, so that it costs no bytes of its own."""


def is_attention(kind: str) -> bool:
    """Whether a kind is one of attention's."""
    return kind in ATTENTION
