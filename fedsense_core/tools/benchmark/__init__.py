"""Benchmarks: many methods, compressions, seeds and tasks from one file, and what may be said of
their differences."""
