"""Memory that was freed stays with the process that asked for that, and with no other."""

import subprocess
import sys

import pytest

_MEGABYTES = 200
_CODE = f"""
import resource, sys
from workers.engine.allocator import keep_pages
if sys.argv[1] == "kept":
    keep_pages()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
block = bytearray({_MEGABYTES << 20})
del block
before = faults()
block = bytearray({_MEGABYTES << 20})
print(faults() - before)
"""


def _faults(how: str) -> int:
    """Pages that the system has to give for a block as large as one that was freed before."""
    run = subprocess.run([sys.executable, "-c", _CODE, how], check=True, capture_output=True, text=True)
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc has the switches")
def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    assert _faults("kept") < _faults("given back") / 10
