"""Triton kernels of the fused decoder; only fused.py and products.py import them."""
