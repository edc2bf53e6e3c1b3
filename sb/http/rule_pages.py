"""Pages of rules in their order of precedence, which is not the order of their age."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from sb.http.declare import Call
from sb.http.pages import InvalidCursorError, Page
from sb.ids import is_id
from sb.ops.policy_rules import LEAST_PRIORITY, MOST_PRIORITY, After


class RulePage(Page):
    """A page of rules, the one that wins first."""

    @property
    def after(self) -> After | None:
        """The last rule of the page before this one."""
        return None if self.cursor is None else _decode(self.cursor)


def next_rules(
    call: Call[Any], query: RulePage, rows: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Return the header that leads to the next page, when this one is full."""
    if len(rows) < query.limit:
        return {}
    last = rows[-1]
    key = f"{last['priority']}|{last['depth']}|{last['created_at'].isoformat()}|{last['id']}"
    cursor = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
    target = f"{call.path}?{urlencode({'limit': query.limit, 'cursor': cursor})}"
    return {"Link": f'<{target}>; rel="next"'}


def _decode(cursor: str) -> After:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        priority, depth, moment, rule_id = text.split("|")
        at = datetime.fromisoformat(moment)
        found = After(priority=int(priority), depth=int(depth), at=at.astimezone(UTC), id=rule_id)
    except (ValueError, OverflowError, binascii.Error):
        raise InvalidCursorError from None
    in_range = LEAST_PRIORITY <= found.priority <= MOST_PRIORITY and 0 <= found.depth <= 1000
    if at.tzinfo is None or not is_id(rule_id) or not in_range:
        raise InvalidCursorError
    return found
