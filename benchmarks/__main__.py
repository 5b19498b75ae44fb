"""`python -m benchmarks`: the engine's parts, in turn. Whole jobs: `cases`, `language_model`."""

from benchmarks import allocation, decomposition

if __name__ == "__main__":
    decomposition.run()
    allocation.run()
