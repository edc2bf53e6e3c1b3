"""Platform settings: few, known by name, read from the database by whoever decides by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sb.db.engine import Transaction
from sb.ops import audit
from sb.ops.callers import Actor
from sb.ops.governance_errors import (
    InvalidSettingError,
    SettingUnavailableError,
    UnknownSettingError,
)

#: From this priority on, rules belong to whoever holds `policy.edit`.
RESERVED_PRIORITY = "platform_reserved_priority"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A whole number with its bounds and the value an installation starts with."""

    least: int
    most: int
    initial: int


KNOWN: Mapping[str, Known] = {RESERVED_PRIORITY: Known(least=100, most=1_000_000, initial=9000)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    key: str
    value: int
    updated_at: datetime
    updated_by: str | None


def seed(tx: Transaction, *, now: datetime) -> None:
    """Leave every known setting with a value; one that has a value keeps it."""
    for key, known in KNOWN.items():
        tx.count("setting_insert", key=key, value={"value": known.initial}, now=now)


def list_settings(tx: Transaction) -> list[Setting]:
    """Return every known setting, by key."""
    return [_setting(row) for row in tx.many("setting_list") if row["key"] in KNOWN]


def find(tx: Transaction, *, key: str) -> Setting:
    """Return the setting, or refuse a key that is unknown or without a value."""
    _known(key)
    row = tx.one("setting_find", key=key)
    if row is None:
        raise SettingUnavailableError(key=key)
    return _setting(row)


def reserved_priority(tx: Transaction) -> int:
    """Return the cap below which scoped authors stay, as it is in this transaction."""
    return find(tx, key=RESERVED_PRIORITY).value


def update(tx: Transaction, *, by: Actor, key: str, value: object, now: datetime) -> Setting:
    """Give the setting this value and return it; a value it already has changes nothing."""
    # 1. What is asked for, before anything is held.
    known = _known(key)
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or not known.least <= value <= known.most
    ):
        raise InvalidSettingError(min=known.least, max=known.most, field="value")
    # 2. Hold it, so that the old value of the audit row is the one that was replaced.
    row = tx.one("setting_lock", key=key)
    if row is None:
        raise SettingUnavailableError(key=key)
    before = _setting(row)
    if before.value == value:
        return before
    tx.count(
        "setting_update",
        key=key,
        value={"value": value},
        expected_value=row["value"],
        updated_by=by.actor,
        now=now,
    )
    audit.record(
        tx,
        by=by,
        action="platform_setting.update",
        resource=f"platform_setting:{key}",
        metadata={
            "key": key,
            "old_value": before.value,
            "new_value": value,
            "actor_permission_used": "policy.edit",
        },
        now=now,
    )
    return find(tx, key=key)


def changed_channel(key: str) -> str:
    """Return the signal that says this setting has another value."""
    return f"settings:{key}:changed"


def _known(key: str) -> Known:
    if key not in KNOWN:
        raise UnknownSettingError
    return KNOWN[key]


def _setting(row: Mapping[str, Any]) -> Setting:
    return Setting(
        key=row["key"],
        value=row["value"]["value"],
        updated_at=row["updated_at"],
        updated_by=row["updated_by"],
    )
