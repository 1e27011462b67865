"""Measurements, run by hand: `python -m tests.benchmarks.paint`, `python -m tests.benchmarks.start`."""
