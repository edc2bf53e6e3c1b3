"""Production sticks to a secret: once it serves production, the rules see it as production's.

However it is bound, moved, bound anew or called afterwards, until somebody who writes the rules of
everything says otherwise. A project asks for it in its production environments alone: elsewhere
other people could ask and decide, and rules for that environment would not match.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sb.db.engine import Transaction
from sb.ops import audit, secrets, targets
from sb.ops.callers import Caller
from sb.ops.tenancy_errors import SecretInProductionError

PROD: Final = "prod"
NON_PROD: Final = "non_prod"
CHANGE = "secret.kind_changed"
#: More than the parts of a path by the connections there are.
MAX_NAMES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A secret as a request names it."""

    provider_type: str
    secret_ref: str
    config: Mapping[str, str]
    #: Whether it is asked for behind a connection.
    routed: bool


def settle(
    tx: Transaction, *, target: targets.Target, provider_type: str, secret_ref: str
) -> targets.Target:
    """Return the target with the kind as which the rules see it."""
    if target.environment_kind == PROD:
        return target
    found = is_production(
        tx,
        provider_type=provider_type,
        secret_ref=secret_ref,
        config=target.config,
        connection_id=target.connection_id,
        cluster_name=target.cluster_name,
    )
    return replace(target, environment_kind=PROD, sticks=True) if found else target


def is_production(
    tx: Transaction,
    *,
    provider_type: str,
    secret_ref: str,
    config: Mapping[str, str],
    connection_id: str | None,
    cluster_name: str | None,
) -> bool:
    """Tell whether these lead to a secret of production, whatever it is called there."""
    path = targets.joined_ref(provider_type, secret_ref, config)
    rows = tx.many(
        "secret_list_prod",
        provider_type=provider_type,
        refs=_endings(provider_type, path),
        connection_id=connection_id,
        cluster_name=cluster_name or "",
        limit=MAX_NAMES,
    )
    asked = Asked(
        provider_type=provider_type,
        secret_ref=secret_ref,
        config=config,
        routed=bool(connection_id),
    )
    # More than these there cannot be of one path; if there were, nothing would be let through.
    return len(rows) == MAX_NAMES or any(_same(row, asked) for row in rows)


def _endings(provider_type: str, path: str) -> list[str]:
    """Return what may be left of a path behind a connection that has the beginning as its own."""
    if provider_type not in targets.PATH_PROVIDERS:
        return [path]
    parts = path.split("/")
    return ["/".join(parts[n:]) for n in range(len(parts))]


def _same(row: Mapping[str, Any], asked: Asked) -> bool:
    """Tell whether the entry is for the secret to which these routing keys lead, or may be."""
    path = targets.joined_ref(asked.provider_type, asked.secret_ref, asked.config)
    way: Mapping[str, str] = row["scope"] or {}
    routing = {key: value.strip("/") for key, value in way.items() if key != "kvPrefix"}
    if any(asked.config.get(key, value).strip("/") != value for key, value in routing.items()):
        return False
    entry = targets.joined_ref(asked.provider_type, row["secret_ref"], way)
    names = [asked.secret_ref, path] if row["provider_connection_id"] is None else [path]
    if _hidden_prefix(row, way, asked):
        names = [asked.secret_ref, *_endings(asked.provider_type, path)]
    return _alike(asked.provider_type, entry, *names)


def _hidden_prefix(row: Mapping[str, Any], way: Mapping[str, str], asked: Asked) -> bool:
    """Tell whether a prefix that is not known here may stand before the entry's path."""
    if "kvPrefix" not in targets.ROUTING_KEYS[asked.provider_type]:
        return False
    if row["provider_connection_id"] is None:
        return asked.routed or "kvPrefix" in asked.config
    # Its agent may have one, which a request's takes the place of.
    return "kvPrefix" in asked.config and "kvPrefix" not in way


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
    now: datetime,
) -> None:
    """Make the secret production's, as the project serves it there; again, it changes nothing."""
    _set(tx, by=by, secret_id=secret_id, kind=PROD, facts={"project_id": project_id}, now=now)


def serves_production(tx: Transaction, *, project_id: str, environment_id: str | None) -> bool:
    """Tell whether the environment, or one of all there are, is production."""
    if environment_id is None:
        return tx.scalar("environment_any_prod", project_id=project_id) is not None
    row = tx.one("environment_find", id=environment_id)
    return row is not None and row["kind"] == PROD


def mark_everywhere(tx: Transaction, *, by: Caller, project_id: str, now: datetime) -> None:
    """Make production's what a project that has production has bound without an environment."""
    # The project is held: nothing is bound meanwhile.
    while rows := tx.many("secret_list_everywhere", project_id=project_id):
        for row in rows:
            mark(tx, by=by, secret_id=row["id"], project_id=project_id, now=now)


def change(
    tx: Transaction, *, caller: Caller, secret_id: str, kind: str, reason: str, now: datetime
) -> Mapping[str, Any]:
    """Say of which kind the secret is from now on, and return it; a second call changes nothing.

    What a production environment has is not let go: whoever moved it then would open it.
    """
    row = secrets.show(tx, caller=caller, secret_id=secret_id, permissions=("policy.edit",))
    tx.scalar("secret_lock_path", provider_type=row["provider_type"], secret_ref=row["secret_ref"])
    if kind == NON_PROD and (bound := tx.scalar("binding_count_prod", secret_id=secret_id)):
        raise SecretInProductionError(field="kind", bindings=bound)
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
