"""Public identifiers: a prefix that says what it names, and a random UUID."""

import re
from typing import Annotated
from uuid import uuid4

from fastapi import Path

PublicId = Annotated[str, Path(alias="id", description="the identifier, as it was given out")]
_SHAPE = re.compile(r"[a-z]{3}_[0-9a-f]{32}")


def new_id(prefix: str) -> str:
    """A fresh identifier, such as `job_…`."""
    return f"{prefix}_{uuid4().hex}"


def well_formed(public_id: str) -> bool:
    """Whether this could be one of ours; anything else is kept away from the database."""
    return _SHAPE.fullmatch(public_id) is not None
