"""What the DeFT paper reports for its workloads: Llama-3-8B, one A100 80 GB, fp16.

KV traffic in its own unit, and attention time and decode time summed over a whole run, of Radix
Attention, which reads every branch on its own, and of DeFT-Flatten. Decode time is that of forward
passes: prefill and the handling of trees are not in it. Its few-shot figures are those of 400
steps; the counters published with its code hold 399, the first token being the prefill's. Its
speculative figures are of another workload than ours (all drafts are leaves of the root, accepted
lengths are drawn at random where the recording ends), so traffic cannot be compared there.
Source: Yao et al., ICLR 2025 (arXiv 2404.00242), tables of latencies and IO.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Paper:
    """One workload; TB are 1e12 bytes."""

    radix_kv_tb: float | None
    deft_kv_tb: float | None
    radix_s: float  # attention
    deft_s: float
    radix_decode_s: float  # forward passes, without prefill and the handling of trees
    deft_decode_s: float

    @property
    def speedup(self) -> float:
        """Attention time of Radix Attention over that of DeFT."""
        return self.radix_s / self.deft_s

    @property
    def decode_speedup(self) -> float:
        """Decoding by Radix Attention over decoding by DeFT."""
        return self.radix_decode_s / self.deft_decode_s


def _row(
    kv_tb: tuple[float | None, float | None],
    attention_s: tuple[float, float],
    decode_s: tuple[float, float],
) -> Paper:
    """Pairs of Radix Attention and DeFT-Flatten."""
    return Paper(
        radix_kv_tb=kv_tb[0],
        deft_kv_tb=kv_tb[1],
        radix_s=attention_s[0],
        deft_s=attention_s[1],
        radix_decode_s=decode_s[0],
        deft_decode_s=decode_s[1],
    )


NO_TRAFFIC = (None, None)
PAPER = {
    "few_shot_b20": _row((17.62, 1.68), (5.99, 3.47), (12.37, 9.98)),
    "few_shot_b30": _row((26.43, 2.10), (7.30, 4.07), (14.08, 10.99)),
    "few_shot_b50": _row((44.05, 2.94), (9.96, 5.87), (16.54, 12.48)),
    "sorting128": _row((59.96, 12.40), (39.37, 28.41), (104.79, 94.67)),
    "docmerge": _row((39.74, 10.57), (24.69, 21.45), (69.61, 66.95)),
    "keyword": _row((4.68, 0.58), (3.11, 2.57), (11.25, 10.90)),
    "set128": _row((7.01, 1.04), (5.13, 3.83), (17.03, 16.10)),
    "spec_t32": _row(NO_TRAFFIC, (25.73, 13.15), (54.66, 42.23)),
    "spec_t64": _row(NO_TRAFFIC, (40.47, 16.79), (69.75, 46.60)),
    "spec_t128": _row(NO_TRAFFIC, (76.10, 24.46), (108.56, 56.96)),
    "spec_t256": _row(NO_TRAFFIC, (145.43, 40.56), (188.66, 84.27)),
}
