"""Input factories and comparisons shared by tests, benchmarks and users."""
