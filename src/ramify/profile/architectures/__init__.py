"""Architectures that no library has: their papers' sizes as modules, for characterising only."""
