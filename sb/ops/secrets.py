"""The catalogue of secrets: where each is and what it is called, never what it holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sb.auth.access import Visibility, visibility
from sb.db.engine import Transaction
from sb.errors import InvalidInputError
from sb.ids import new_id
from sb.ops import arrays, audit, targets
from sb.ops.callers import Caller
from sb.ops.errors import OutOfScopeProjectError
from sb.ops.tenancy_errors import SecretNotFoundError

LISTED_BY = ("secret.list",)
_UNSEEN = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a secret is: the same path in another place is another secret."""

    provider_type: str
    secret_ref: str
    cluster_name: str | None = None
    provider_connection_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    cluster_name: str | None = None
    provider_type: str | None = None
    status: str | None = None
    ref_prefix: str | None = None
    project_id: str | None = None
    #: Pairs of name and value, all of which the secret has.
    labels: tuple[tuple[str, str], ...] = ()


def show(
    tx: Transaction,
    *,
    caller: Caller,
    secret_id: str,
    permissions: tuple[str, ...] = LISTED_BY,
) -> Mapping[str, Any]:
    """Return the secret's metadata if one of the permissions covers it, or refuse as not found."""
    seen = visibility(caller.grants, permissions)
    rows = _list(tx, seen, filters=Filters(), secret_id=secret_id, before=None, limit=1)
    if not rows:
        raise SecretNotFoundError
    return rows[0]


def list_secrets(
    tx: Transaction,
    *,
    caller: Caller,
    filters: Filters,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Mapping[str, Any]]:
    """Return the metadata of up to `limit` secrets the caller may list, newest first."""
    seen = visibility(caller.grants, LISTED_BY)
    return _list(tx, seen, filters=filters, secret_id=None, before=before, limit=limit)


def _list(
    tx: Transaction,
    seen: Visibility,
    *,
    filters: Filters,
    secret_id: str | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Mapping[str, Any]]:
    labels = dict(filters.labels)
    if len(labels) < len(set(filters.labels)):  # Nothing has two values of one label.
        return []
    return tx.many(
        "secret_list",
        id=secret_id,
        everything=seen.everything,
        **arrays.places([{}] if seen.everything else seen.scopes),
        **arrays.whole(seen.scopes),
        cluster_name=filters.cluster_name,
        provider_type=filters.provider_type,
        status=filters.status,
        ref_prefix=filters.ref_prefix,
        labels=labels or None,
        project_id=filters.project_id,
        before_at=before[0] if before else None,
        before_id=before[1] if before else None,
        limit=limit,
    )


def settle(tx: Transaction, *, place: Place) -> Place:
    """Return the one exact place that is meant, or refuse what has another spelling or no way."""
    check_ref(place.secret_ref)
    try:
        connection_id, cluster = targets.find_connection(
            tx, place.provider_type, place.provider_connection_id, bound_cluster=place.cluster_name
        )
    except OutOfScopeProjectError:
        reason = "the provider connection serves another cluster"
        raise InvalidInputError(fields=[{"field": "cluster_name", "reason": reason}]) from None
    return Place(
        provider_type=place.provider_type,
        secret_ref=place.secret_ref,
        cluster_name=cluster or place.cluster_name,
        provider_connection_id=connection_id,
    )


def check_ref(secret_ref: str) -> None:
    """Refuse a second spelling of a path: two names of one secret would be two bindings to it."""
    parts = secret_ref.split("/")
    if any(part in ("", ".", "..") for part in parts):
        reason = "begins or ends with a slash, or has empty or relative parts"
    elif secret_ref != secret_ref.strip() or _UNSEEN.search(secret_ref):
        reason = "has spaces around it or holds control characters"
    else:
        return
    raise InvalidInputError(fields=[{"field": "secret_ref", "reason": reason}])


def register(
    tx: Transaction, *, caller: Caller, place: Place, project_id: str, now: datetime
) -> str:
    """Return the id of the secret of this place, new in the catalogue if nobody had named it."""
    cluster = place.cluster_name or ""
    found = tx.one(
        "secret_find_identity",
        provider_type=place.provider_type,
        secret_ref=place.secret_ref,
        cluster_name=cluster,
        connection_key=place.provider_connection_id or "",
    )
    if found is not None:
        return str(found["id"])
    secret_id = new_id()
    facts = {
        "provider_type": place.provider_type,
        "secret_ref": place.secret_ref,
        "cluster_name": cluster,
        "provider_connection_id": place.provider_connection_id,
    }
    tx.count("secret_insert", id=secret_id, labels={}, **facts, now=now)
    audit.record(
        tx,
        by=caller,
        action="secret.register",
        resource=f"secret:{secret_id}",
        metadata={**facts, "project_id": project_id},
        now=now,
    )
    return secret_id
