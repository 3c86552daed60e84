"""Profiling: where the time of a step goes, on the device and on the host."""
