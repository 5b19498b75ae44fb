"""The database's clock: the only one that leases and times are measured with."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression


class now(expression.FunctionElement[float]):  # noqa: N801 -- reads as SQL
    """Seconds since 1970-01-01 UTC by the database's own clock, advancing within a transaction."""

    type = sa.Double()
    inherit_cache = True


@compiles(now, "postgresql")
def _postgresql(_element: now, _compiler: Any, **_options: Any) -> str:
    return "extract(epoch from clock_timestamp())::float8"


@compiles(now, "sqlite")
def _sqlite(_element: now, _compiler: Any, **_options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"
