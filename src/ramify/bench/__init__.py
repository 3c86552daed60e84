"""Benchmarks: one question per file, answered in rows that carry their command and machine."""
