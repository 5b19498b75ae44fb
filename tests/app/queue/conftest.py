"""The queue's promises hold on both databases."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from app.db.session import make_engine


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on each of the two databases in turn."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()
