"""Benchmarks.  Not timed tests: each says what its number means; dated outcomes are in LOG.md."""
