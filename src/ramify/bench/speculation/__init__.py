"""Speculative decoding measured: every drafter on real prompts, and replayed acceptance."""
