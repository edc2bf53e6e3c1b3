"""How column names tell their type where the driver does not: SQLite stores text and integers.

A test compares this convention with the types of every column in the Postgres schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

JSON_COLUMNS = frozenset(
    {
        "allowed_keys",
        "allowed_ops",
        "capabilities",
        "labels",
        "metadata",
        "notification_channels",
        "payload",
        "permissions",
        "response",
        "result",
        "scope",
        "selector",
        "target_keys",
        "target_provider_config",
        "target_scope",
        "value",
    }
)

BOOL_COLUMNS = frozenset(
    {
        "allow_self_approval",
        "auto_approve",
        "direct_reveal_allowed",
        "disabled",
        "enabled",
        "is_default",
        "is_system",
        "must_change_password",
        "require_justification",
        "requires_mfa",
        "requires_security_approval",
        "scoped_policy_authorable",
        "snap_allow_self_approval",
        "snap_requires_security_approval",
    }
)

_TIME_SUFFIXES = ("_at", "_until", "run_after")


def to_text_time(moment: datetime) -> str:
    """Return the one fixed-width form in which SQLite stores times, so that text order is time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def converter_for(column: str) -> Callable[[Any], Any] | None:
    """Return what turns a stored SQLite value of this column into its Python value, if anything."""
    if column in JSON_COLUMNS:
        return json.loads
    if column in BOOL_COLUMNS:
        return bool
    if column.endswith(_TIME_SUFFIXES):
        return datetime.fromisoformat
    return None


def adapt(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with JSON values as text, as both databases take them."""
    return {
        name: json.dumps(value) if isinstance(value, dict | list | tuple) else value
        for name, value in params.items()
    }
