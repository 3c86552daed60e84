"""Backends: ways to execute a plan. `open_backend` picks one and says why."""

from ramify.attention.backends.base import Backend, LayerOptions
from ramify.attention.backends.select import BACKENDS, open_backend

__all__ = ["BACKENDS", "Backend", "LayerOptions", "open_backend"]
