"""Benchmarks: ratios within one interleaved run, medians. Run them with `make bench`."""
