"""Speculative decoding: draft trees that the model verifies in one forward pass."""
