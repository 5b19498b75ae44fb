"""transformers, without the network."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def offline() -> None:
    """Tell the libraries of the hub to look for nothing on the network, before they read their settings."""
    os.environ.update(_OFFLINE)


def library() -> ModuleType:
    """The package, imported when it is first needed: that takes seconds, and most networks need none of it.

    It is told to stay offline and silent before it reads its settings, and that there is no SciPy: that would
    be 36 MB for losses that nobody here computes.
    """
    offline()
    with _hidden("scipy"):
        import transformers  # noqa: PLC0415

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    module: ModuleType = transformers
    return module


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """While this lasts, a package that is not imported yet cannot be."""
    known = package in sys.modules
    if not known:
        sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if not known:
            del sys.modules[package]
