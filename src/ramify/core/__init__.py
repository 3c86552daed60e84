"""Data that every room shares: requests, sampling parameters, the forest, errors, configuration."""
