"""Times as the API writes them."""

from datetime import UTC, datetime


def moment(seconds: float) -> datetime:
    """Seconds since 1970 UTC as an aware time."""
    return datetime.fromtimestamp(seconds, UTC)


def moment_or_none(seconds: float | None) -> datetime | None:
    """Like `moment`, for what may not have happened yet."""
    return None if seconds is None else moment(seconds)
