"""The KV cache as one token tree: extents of slots, live branches and the prefix cache together."""

from ramify.cache.loans import next_in_line, slots_ahead
from ramify.cache.node import Cursor, Node
from ramify.cache.pool import Lines
from ramify.cache.slots import Extent, SlotAllocator
from ramify.cache.snapshot import build_forest
from ramify.cache.tips import Growth, Tips, tips_of
from ramify.cache.tree import TokenTree

__all__ = [
    "Cursor",
    "Extent",
    "Growth",
    "Lines",
    "Node",
    "SlotAllocator",
    "Tips",
    "TokenTree",
    "build_forest",
    "next_in_line",
    "slots_ahead",
    "tips_of",
]
