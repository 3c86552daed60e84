"""The engine: the loop, its books, and what users call."""

from ramify.engine.engine import Engine
from ramify.engine.handles import NodeHandle
from ramify.engine.llm import LLM
from ramify.engine.pins import Pin
from ramify.engine.stream import Stream

__all__ = ["LLM", "Engine", "NodeHandle", "Pin", "Stream"]
