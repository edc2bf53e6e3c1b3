"""Keyset pages: an opaque cursor in, a `Link: …; rel="next"` header out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urlencode

from pydantic import Field, field_validator

from sb.errors import SbError
from sb.http.bodies import Query
from sb.http.declare import Call
from sb.ids import is_id

DEFAULT_LIMIT = 50
MAX_LIMIT = 200


class InvalidCursorError(SbError):
    code = "invalid_cursor"
    status = 400
    message = "The cursor is not one this server gave out; start again from the first page."


class Page(Query):
    """The part of a list query that says which page; larger limits are cut to the largest."""

    most: ClassVar[int] = MAX_LIMIT

    limit: int = Field(default=DEFAULT_LIMIT, ge=1)
    cursor: str | None = Field(default=None, max_length=200)

    @field_validator("limit")
    @classmethod
    def _cut(cls, value: int) -> int:
        return min(value, cls.most)

    @property
    def before(self) -> tuple[datetime, str] | None:
        """The key of the last row of the page before this one."""
        return None if self.cursor is None else _decode(self.cursor)


def next_link(
    call: Call[Any],
    query: Page,
    rows: Sequence[object],
    last: tuple[datetime, str] | None,
    *,
    limit: int | None = None,
) -> dict[str, str]:
    """Return the header that leads to the next page, when this one is full."""
    if last is None or len(rows) < (limit or query.limit):
        return {}
    params = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in query.model_dump(exclude_none=True, exclude_defaults=True).items()
        if name != "cursor"
    }
    params["cursor"] = _encode(*last)
    target = f"{call.path}?{urlencode(params, doseq=True)}"
    return {"Link": f'<{target}>; rel="next"'}


def _encode(moment: datetime, row_id: str) -> str:
    return base64.urlsafe_b64encode(f"{moment.isoformat()}|{row_id}".encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[datetime, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        moment, _, row_id = base64.urlsafe_b64decode(padded).decode().partition("|")
        at = datetime.fromisoformat(moment)
        if at.tzinfo is None or not is_id(row_id):
            raise InvalidCursorError
        return at.astimezone(UTC), row_id
    except (ValueError, OverflowError, binascii.Error):
        raise InvalidCursorError from None
