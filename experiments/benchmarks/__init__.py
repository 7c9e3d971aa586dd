"""Benchmarks: what is measured in a clone and written into ``docs/``; not installed with ``mer``."""
