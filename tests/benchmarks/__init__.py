"""The benchmarks, as far as they can be tested in no time."""
