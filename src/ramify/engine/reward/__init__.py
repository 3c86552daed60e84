"""Reward models: what a path is worth, by a head on the engine's model or by a second model."""
