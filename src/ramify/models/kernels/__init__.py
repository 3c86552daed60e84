"""Triton kernels of the fused decoder. Imported by fused.py alone: a CPU needs no Triton."""
