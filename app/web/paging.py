"""Cursor pages: newest first, stable while rows come and go."""

import base64
import binascii
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

import sqlalchemy as sa
from fastapi import Query
from sqlalchemy import Connection
from sqlalchemy.orm import InstrumentedAttribute

from app.contract.base import Contract
from app.db.rows import AnyRow, AnySelect
from app.errors import Unprocessable
from app.web.ids import well_formed

Item = TypeVar("Item")
Limit = Annotated[int, Query(ge=1, le=100, description="the most items on the page")]
CursorText = Annotated[str | None, Query(description="`next_cursor` of the page before")]


class Page(Contract, Generic[Item]):
    """Some of the items; `next_cursor` leads to the rest and is null on the last page."""

    items: list[Item]
    next_cursor: str | None = None


@dataclass(frozen=True)
class Cursor:
    """A place in a listing: just after the row with this time and id."""

    created_at: float
    id: str

    def text(self) -> str:
        """The cursor as it travels; opaque to clients."""
        return base64.urlsafe_b64encode(json.dumps([self.created_at, self.id]).encode()).decode()


def read_cursor(text: str | None) -> Cursor | None:
    """The cursor a client sent back; raises `Unprocessable` for one that we never gave out."""
    if text is None:
        return None
    try:
        created_at, row_id = json.loads(base64.b64decode(text, altchars=b"-_", validate=True))
        if math.isfinite(created_at) and well_formed(row_id):
            return Cursor(float(created_at), row_id)
    except (binascii.Error, ValueError, TypeError):
        pass
    raise invalid_cursor()


def invalid_cursor() -> Unprocessable:
    """The problem of a cursor that we never gave out."""
    return Unprocessable(
        "invalid_cursor",
        "This is not a cursor of this listing.",
        hint="Leave `cursor` out for the first page, then pass `next_cursor` on as it came.",
        field="cursor",
    )


def fetch_page(
    connection: Connection,
    query: AnySelect,
    order: tuple[InstrumentedAttribute[float], InstrumentedAttribute[str]],
    cursor: Cursor | None,
    limit: int,
    show: Callable[[AnyRow], Item],
) -> Page[Item]:
    """The rows of `query` after `cursor`, newest first by `order` (time, id), at most `limit`."""
    if cursor is not None:
        query = query.where(sa.tuple_(*order) < sa.tuple_(cursor.created_at, cursor.id))
    ordered = query.order_by(*(column.desc() for column in order))
    rows: Sequence[AnyRow] = connection.execute(ordered.limit(limit + 1)).all()
    more = len(rows) > limit
    last = Cursor(rows[limit - 1].created_at, rows[limit - 1].id).text() if more else None
    return Page(items=[show(row) for row in rows[:limit]], next_cursor=last)
