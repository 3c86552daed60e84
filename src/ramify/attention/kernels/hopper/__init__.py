"""The Hopper kernel in CUDA C++, and how its parts become one source."""
