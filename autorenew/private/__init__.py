"""Servers of our own, for the embedded mode, the tests and the benchmarks."""
