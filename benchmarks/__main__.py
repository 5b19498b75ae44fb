"""`python -m benchmarks`: every benchmark, one after the other."""

from benchmarks import allocation, decomposition

if __name__ == "__main__":
    decomposition.run()
    allocation.run()
