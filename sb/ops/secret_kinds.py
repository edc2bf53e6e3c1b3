"""Production sticks to a secret: once it serves production, the rules see it as production's.

However it is bound, moved, bound anew or asked for afterwards, until somebody who writes the rules
of everything says otherwise. A weaker environment or a second binding opens no other way to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sb.db.engine import Transaction
from sb.ops import audit, secrets, targets
from sb.ops.callers import Caller

PROD: Final = "prod"
NON_PROD: Final = "non_prod"
CHANGE = "secret.kind_changed"
#: With so many entries for one path nobody compares them any more: it is production's.
MAX_ENTRIES: Final = 100


def settle(
    tx: Transaction, *, target: targets.Target, provider_type: str, secret_ref: str
) -> targets.Target:
    """Return the target with the kind as which the rules see it."""
    if target.environment_kind == PROD:
        return target
    path = targets.joined_ref(provider_type, secret_ref, target.config)
    rows = tx.many(
        "secret_list_prod",
        provider_type=provider_type,
        refs=_endings(path) if provider_type in targets.PATH_PROVIDERS else [path],
        connection_id=target.connection_id,
        cluster_name=target.cluster_name or "",
    )
    asked = (provider_type, secret_ref, target.config)
    if len(rows) < MAX_ENTRIES and not any(_same(row, *asked) for row in rows):
        return target
    return replace(target, environment_kind=PROD, sticks=True)


def _endings(path: str) -> list[str]:
    """Return what may be left of a path behind a connection that has the beginning as its own."""
    parts = path.split("/")
    return ["/".join(parts[n:]) for n in range(len(parts))]


def _same(
    row: Mapping[str, Any], provider_type: str, secret_ref: str, config: Mapping[str, str]
) -> bool:
    """Tell whether the entry is for the secret to which these routing keys lead."""
    path = targets.joined_ref(provider_type, secret_ref, config)
    if row["provider_connection_id"] is None:
        # Behind whichever connection: both what is written and what is reached are its name.
        return _alike(provider_type, row["secret_ref"], secret_ref, path)
    way: Mapping[str, str] = row["scope"] or {}
    if any(config.get(key, value) != value for key, value in way.items() if key != "kvPrefix"):
        return False
    return _alike(provider_type, targets.joined_ref(provider_type, row["secret_ref"], way), path)


def _alike(provider_type: str, entry: str, *names: str) -> bool:
    # A key vault does not tell capitals from small letters.
    return entry in names or (
        provider_type == "azure-kv" and entry.lower() in {name.lower() for name in names}
    )


def mark(
    tx: Transaction,
    *,
    by: Caller,
    secret_id: str,
    project_id: str,
    environment_id: str | None,
    now: datetime,
) -> None:
    """Make the secret production's if a binding to this environment, or to each, serves it."""
    if environment_id is None:
        serves = tx.scalar("environment_any_prod", project_id=project_id) is not None
    else:
        row = tx.one("environment_find", id=environment_id)
        serves = row is not None and row["kind"] == PROD
    if serves:
        _set(tx, by=by, secret_id=secret_id, kind=PROD, facts={"project_id": project_id}, now=now)


def mark_everywhere(tx: Transaction, *, by: Caller, project_id: str, now: datetime) -> None:
    """Make production's what a project that has production has bound without an environment."""
    # The project is held: nothing is bound meanwhile.
    while rows := tx.many("secret_list_everywhere", project_id=project_id):
        for row in rows:
            facts = {"project_id": project_id}
            _set(tx, by=by, secret_id=row["id"], kind=PROD, facts=facts, now=now)


def change(
    tx: Transaction, *, caller: Caller, secret_id: str, kind: str, reason: str, now: datetime
) -> Mapping[str, Any]:
    """Say of which kind the secret is from now on, and return it; a second call changes nothing."""
    row = secrets.show(tx, caller=caller, secret_id=secret_id, permissions=("policy.edit",))
    _set(tx, by=caller, secret_id=secret_id, kind=kind, facts={"reason": reason}, now=now)
    return {**row, "kind": kind}


def _set(
    tx: Transaction,
    *,
    by: Caller,
    secret_id: str,
    kind: str,
    facts: Mapping[str, Any],
    now: datetime,
) -> None:
    if kind == PROD:
        changed = tx.count("secret_set_prod", id=secret_id, now=now)
    else:
        changed = tx.count("secret_clear_prod", id=secret_id)
    if not changed:
        return
    audit.record(
        tx,
        by=by,
        action=CHANGE,
        resource=f"secret:{secret_id}",
        metadata={"after": {"kind": kind}, **facts},
        now=now,
    )
