"""Suites of forests: the shapes of the papers' own benchmarks, and what those leave out.

fasttree and deft are the shapes of those papers; forest has many trees, equal and unequal; long
has long documents; flat shares nothing; lean is stream-K against a fixed split; spec verifies
drafts. KV of a case is at most 16 GiB. Sources: FastTree, Pan et al. 2025; DeFT, Yao et al. 2025
(arXiv 2404.00242); LeanAttention, Sanovar et al. 2025 (arXiv 2405.10480).
"""

from __future__ import annotations

from ramify.bench.attention.shapes import Case, Heads, parse_levels
from ramify.core.errors import InputError, expected_got

_FASTTREE = (
    "1,2,64x8,256,32",
    "1,4,256x8,256,32",
    "1,4,8,256x8,256,256,32",
    "1,256x256,32",
    "1,1024x2048,32",
    "1,16,64x1024,256,32",
    "1,4,16,512x1024,256,128,32",
    "1,4,16,64,256,1024x256,8,256,64,32,256",
    "1,10x4000,400",
    "1,2,4,8,16,32,64,128,1024x16,16,16,16,16,16,16,16,16",
)
_MHA = ("1,4,256x8,256,32", "1,1024x2048,32", "1,10x4000,400")
_DEFT = (
    "1,20x4000,200",
    "1,50x4000,200",
    "1,10,50x1000,400,200",
    "1,64x1000,3",
    "1,256x1000,4",
    "1,20x20000,200",
)
_FOREST = (
    "8,64x8192,256",
    "16,64,512x2048,256,64",
    "8,16,32,256x512,512,256,32",
    "16,256x2048,512",
    # unequal trees: 5 to 60 rows each
    "12,390x4096,256~0.0833",
    "32,1040x1024,64~0.0833",
)
_LONG = ("1,16x131072,256", "1,8,64x4096,8192,1024")
_FLAT = (
    "1x1024",
    "1x8192",
    "1x65536",
    "1,1x524288,1",
    "4x4096",
    "4,4x131072,64",
    "16x2048",
    "16x8192",
    "16x32768",
    "32,32x8192,128",
    "128x1024",
    "128x8192",
    "256x4096",
    "16x8192~0.5",
    "16x8192~0.1",
    "4x65536~0.1",
    "32x8192~0.1",
    "128x2048~0.1",
)
# of batch 1, 4, 16 x 1k to 512k what fits 16 GiB of KV
_LEAN = (
    "1x1024",
    "1x8192",
    "1x65536",
    "1x262144",
    "1x524288",
    "4x8192",
    "4x65536",
    "4x262144",
    "16x1024",
    "16x8192",
    "16x65536",
    "16x262144",
    "16x8192~0.5",
    "16x8192~0.1",
    "4x65536~0.1",
    "16x65536~0.1",
)
_LEAN_MHA = ("1x8192", "1x65536", "1x524288", "4x65536", "16x8192", "16x8192~0.1")
_LEAN_MQA = ("1x8192", "1x65536", "1x524288", "16x8192", "16x65536~0.1")
_SPEC = (
    "1x1000+draft64",
    "32x8192+draft64",
    *(f"1x{context}+draft{draft}" for context in (1024, 4096, 16384) for draft in (64, 128, 256)),
)
_GQA, _PLAIN, _MQA = Heads(), Heads(num_kv_heads=32), Heads(num_q_heads=16, num_kv_heads=1)
_MQA8 = Heads(num_q_heads=8, num_kv_heads=1)

_SUITES: dict[str, tuple[tuple[Heads, tuple[str, ...]], ...]] = {
    "fasttree": ((_GQA, _FASTTREE), (_PLAIN, _MHA), (_MQA, _MHA)),
    "deft": ((_GQA, _DEFT), (_PLAIN, ("1,50x4000,200", "1,256x1000,4"))),
    "forest": ((_GQA, _FOREST),),
    "long": ((_GQA, _LONG),),
    "flat": ((_GQA, _FLAT),),
    "lean": ((_GQA, _LEAN), (_PLAIN, _LEAN_MHA), (_MQA8, _LEAN_MQA)),
    "spec": ((_GQA, _SPEC),),
}
SUITES = tuple(_SUITES)


def suite(name: str) -> list[Case]:
    """The cases of a suite, `SUITES` lists them. Raises InputError for another name."""
    if name not in _SUITES:
        raise InputError(expected_got("suite", ", ".join(SUITES), repr(name)))
    return [
        Case(suite=name, tree=parse_levels(shape), heads=heads)
        for heads, shapes in _SUITES[name]
        for shape in shapes
    ]
