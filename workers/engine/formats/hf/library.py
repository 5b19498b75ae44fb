"""transformers, without the network."""

import os
from types import ModuleType

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def offline() -> None:
    """Tell the libraries of the hub to look for nothing on the network, before they read their settings."""
    os.environ.update(_OFFLINE)


def library() -> ModuleType:
    """The package, imported when it is first needed: that takes seconds, and most networks need none of it.

    It is told to stay offline and silent before it reads its settings.
    """
    offline()
    import transformers  # noqa: PLC0415

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    module: ModuleType = transformers
    return module
