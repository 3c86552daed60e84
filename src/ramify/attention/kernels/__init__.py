"""Triton kernel bodies. Imported by the triton backend alone, and only when it is opened."""
