"""What the DeFT paper reports for its workloads: Llama-3-8B, one A100 80 GB, fp16.

KV traffic in its own unit and attention time summed over a whole run, of Radix Attention, which
reads every branch on its own, and of DeFT-Flatten. Its few-shot figures are those of 400 steps; the
counters published with its code hold 399, the first token being the prefill's. Its speculative
figures are of another workload than ours (all drafts are leaves of the root, accepted lengths are
drawn at random where the recording ends), so traffic cannot be compared there.
Source: Yao et al., ICLR 2025 (arXiv 2404.00242), attention latency and IO tables.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Paper:
    """One workload; TB are 1e12 bytes."""

    radix_kv_tb: float | None
    deft_kv_tb: float | None
    radix_s: float
    deft_s: float

    @property
    def speedup(self) -> float:
        """Attention time of Radix Attention over that of DeFT."""
        return self.radix_s / self.deft_s


def _spec(radix_s: float, deft_s: float) -> Paper:
    return Paper(radix_kv_tb=None, deft_kv_tb=None, radix_s=radix_s, deft_s=deft_s)


PAPER = {
    "few_shot_b20": Paper(radix_kv_tb=17.62, deft_kv_tb=1.68, radix_s=5.99, deft_s=3.47),
    "few_shot_b30": Paper(radix_kv_tb=26.43, deft_kv_tb=2.10, radix_s=7.30, deft_s=4.07),
    "few_shot_b50": Paper(radix_kv_tb=44.05, deft_kv_tb=2.94, radix_s=9.96, deft_s=5.87),
    "sorting128": Paper(radix_kv_tb=59.96, deft_kv_tb=12.40, radix_s=39.37, deft_s=28.41),
    "docmerge": Paper(radix_kv_tb=39.74, deft_kv_tb=10.57, radix_s=24.69, deft_s=21.45),
    "keyword": Paper(radix_kv_tb=4.68, deft_kv_tb=0.58, radix_s=3.11, deft_s=2.57),
    "set128": Paper(radix_kv_tb=7.01, deft_kv_tb=1.04, radix_s=5.13, deft_s=3.83),
    "spec_t32": _spec(25.73, 13.15),
    "spec_t64": _spec(40.47, 16.79),
    "spec_t128": _spec(76.10, 24.46),
    "spec_t256": _spec(145.43, 40.56),
}
