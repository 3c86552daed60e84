"""Backends: ways to execute a plan. `open_backend` picks one and says why."""

from ramify.attention.backends.select import BACKENDS, Backend, open_backend

__all__ = ["BACKENDS", "Backend", "open_backend"]
