"""Hopper kernels in CUDA C++, compiled at run time: products of few rows."""
