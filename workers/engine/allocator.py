"""The C library's allocator."""

import ctypes

# Of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 1 << 30  # bytes


def keep_pages() -> None:
    """From now on this process keeps memory that it frees, for the next tensors of the same sizes.

    Half of what the system does for a job is giving it pages that it gave back a moment before. Whoever loads
    a network once and leaves needs no more than it holds, and does not ask for this. No other C library than
    glibc has these switches: there nothing changes.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, _KEPT)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)
