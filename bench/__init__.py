"""Benchmarks.  Each module says what its numbers mean.  LOG.md has the results, with dates and hardware."""
