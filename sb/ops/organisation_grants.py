"""Grants of a document: given where they are not in force, left alone where they have ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sb.ops import audit, grant_lists, grants, scopes
from sb.ops.organisation_names import Row, everything, fault
from sb.ops.organisation_work import Item, Key, Work, given

KEYS = ("expires_at", "reason")
#: How many of the grants taken back last are looked at to tell that one is given again.
MOST_TAKEN_BACK = 1000


def grant(work: Work, item: Item, at: str) -> None:
    user_id = work.names.person(item["person"], field=f"{at}.person")
    role_id = work.names.id_of("role", item["role"], field=f"{at}.role")
    scope = scopes.canonical(work.names.with_ids(item["scope"], field=f"{at}.scope"))
    common: dict[str, Any] = {"caller": work.caller, "now": work.now}
    if user_id not in work.grants:
        work.grants[user_id] = _of_user(work, user_id, active=True)
    key = _grant_key(role_id, scope)
    row = work.grants[user_id].get(key)
    asked = given(item, KEYS)
    name = _told(item)
    if row is not None:
        found = grants.update(work.tx, grant_id=row["id"], changes=asked, **common)
        work.grants[user_id][key] = found
        work.note("grant", name, row, found, shown=KEYS)
        return
    ends = asked.get("expires_at")
    taken_back = _taken_back(work, (user_id, *key))
    if ends is not None and ends <= work.now:
        if taken_back is None and key not in _of_user(work, user_id, active=False):
            raise fault(f"{at}.expires_at", "lies in the past")
        work.note("grant", name, {}, {})  # It was given and has ended, as the document said.
        return
    asked = {"expires_at": None, "reason": None, **asked}
    found = grants.create(work.tx, user_id=user_id, role_id=role_id, scope=scope, **asked, **common)
    work.grants[user_id][key] = found
    told = {**found, "taken_back": taken_back}
    work.note("grant", name, None, told, shown=(*KEYS, "taken_back"))


def _told(item: Item) -> str:
    where = ", ".join(f"{key}={value}" for key, value in sorted(item["scope"].items()))
    return f"{item['role']} to {item['person']} at {where or 'everything'}"


def _of_user(work: Work, user_id: str, *, active: bool) -> dict[Key, Row]:
    """Return the person's grants that are in force, or those that have ended."""
    rows = everything(
        lambda **page: grant_lists.list_of_user(
            work.tx, caller=work.caller, user_id=user_id, active=active, now=work.now, **page
        ),
        at="granted_at",
        id_="id",
    )
    return {_grant_key(row["role_id"], row["scope"]): row for row in reversed(list(rows))}


def _taken_back(work: Work, key: Key) -> datetime | None:
    """Return when such a grant was last taken back, as far as that is among the last ones."""
    if work.taken_back is None:
        filters = audit.Filters(action="grant.revoke", status="success")
        events = audit.list_events(work.tx, filters=filters, before=None, limit=MOST_TAKEN_BACK)
        work.taken_back = {_event_key(one.metadata): one.occurred_at for one in reversed(events)}
    return work.taken_back.get(key)


def _event_key(facts: Mapping[str, Any]) -> Key:
    return facts.get("user_id"), *_grant_key(str(facts.get("role_id")), facts.get("scope") or {})


def _grant_key(role_id: str, scope: Mapping[str, Any]) -> Key:
    return role_id, json.dumps(scope, sort_keys=True)
