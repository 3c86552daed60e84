"""Search controllers: one algorithm per file, pure: view and events in, actions out."""

from ramify.search.sample import Sample

__all__ = ["Sample"]
