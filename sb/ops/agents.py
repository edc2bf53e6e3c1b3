"""Agents: authenticated by their own secret, alive by heartbeat, sealed to by their public key."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sb.db.engine import Transaction
from sb.errors import Denial
from sb.ids import new_id
from sb.ops import audit
from sb.ops.callers import Actor, AgentCaller, System
from sb.ops.errors import AgentAuthRejectedError, AgentNotFoundError
from sb.sealing import fingerprint as fingerprint_of

#: An agent in one of these states is refused whatever secret it shows.
REFUSED_STATUSES = ("revoked", "disabled")
SYSTEM = System(part="worker")


def authenticate(
    tx: Transaction, *, agent_id: str, secret_hash: bytes, now: datetime
) -> AgentCaller:
    """Return the agent behind this secret; every refusal looks the same to the caller."""
    del now  # Agents have no sessions; the signature matches the person's counterpart.
    row = tx.one("agent_find_credential", id=agent_id)
    stored = row["secret_hash"] if row is not None else bytes(32)
    matches = hmac.compare_digest(stored, secret_hash)
    if row is None:
        raise AgentAuthRejectedError(audit=_auth_denied(agent_id, "unknown_agent"))
    if row["status"] in REFUSED_STATUSES:
        raise AgentAuthRejectedError(audit=_auth_denied(agent_id, row["status"]))
    if not matches:
        raise AgentAuthRejectedError(audit=_auth_denied(agent_id, "bad_secret"))
    return AgentCaller(
        agent_id=row["id"],
        name=row["name"],
        provider_connection_id=row["provider_connection_id"],
        cluster_name=row["cluster_name"],
        provider_type=row["provider_type"],
        public_key=row["public_key"],
    )


def _auth_denied(agent_id: str, reason: str) -> Denial:
    return Denial(
        "agent.auth.rejected", f"agent:{agent_id}", reason=reason, error_kind="unauthorized"
    )


def heartbeat(
    tx: Transaction,
    *,
    agent: AgentCaller,
    last_status: str | None,
    agent_version: str | None,
    capabilities: Sequence[str] | None,
    now: datetime,
) -> None:
    """Record a sign of life; an enrolled or stale agent is active afterwards."""
    touched = tx.count(
        "agent_touch",
        id=agent.agent_id,
        last_status=last_status,
        agent_version=agent_version,
        capabilities=list(capabilities) if capabilities is not None else None,
        now=now,
    )
    if touched == 0:  # Revoked between authentication and now.
        raise AgentAuthRejectedError


def set_public_key(
    tx: Transaction, *, agent: AgentCaller, public_key: bytes, now: datetime
) -> None:
    """Register or rotate the agent's X25519 key; from now on values travel sealed to it."""
    if agent.public_key == public_key:
        return
    fingerprint = fingerprint_of(public_key)
    changed = tx.count(
        "agent_set_public_key",
        id=agent.agent_id,
        public_key=public_key,
        public_key_fingerprint=fingerprint,
        now=now,
    )
    if changed == 0:  # Revoked between authentication and now.
        raise AgentAuthRejectedError
    audit.record(
        tx,
        by=agent,
        action="agent.public_key.set",
        resource=f"agent:{agent.agent_id}",
        metadata={"algorithm": "x25519", "public_key_sha": fingerprint},
        now=now,
    )


def mint(
    tx: Transaction,
    *,
    by: Actor,
    name: str,
    secret_hash: bytes,
    scope: Mapping[str, Any],
    public_key: bytes | None,
    now: datetime,
) -> str:
    """Create an agent without enrolment and return its id; it covers jobs without a connection."""
    agent_id = new_id()
    insert(
        tx,
        agent_id=agent_id,
        name=name,
        secret_hash=secret_hash,
        status="active",
        scope=scope,
        public_key=public_key,
        cluster_name=scope.get("cluster"),
        provider_type=scope.get("provider"),
        now=now,
    )
    audit.record(
        tx,
        by=by,
        action="agent.mint",
        resource=f"agent:{agent_id}",
        metadata={"name": name, "public_key_algorithm": "x25519" if public_key else None},
        now=now,
    )
    return agent_id


def insert(
    tx: Transaction,
    *,
    agent_id: str,
    name: str,
    secret_hash: bytes,
    status: str,
    now: datetime,
    scope: Mapping[str, Any] | None = None,
    public_key: bytes | None = None,
    provider_connection_id: str | None = None,
    cluster_name: str | None = None,
    provider_type: str | None = None,
    region: str | None = None,
    agent_version: str | None = None,
    capabilities: Sequence[str] = (),
) -> None:
    """Store a new agent; a name that a live agent has is refused."""
    tx.count(
        "agent_insert",
        id=agent_id,
        name=name,
        scope=dict(scope or {}),
        status=status,
        secret_hash=secret_hash,
        public_key=public_key,
        public_key_algorithm="x25519" if public_key else None,
        public_key_fingerprint=fingerprint_of(public_key) if public_key else None,
        provider_connection_id=provider_connection_id,
        cluster_name=cluster_name,
        provider_type=provider_type,
        region=region,
        agent_version=agent_version,
        capabilities=list(capabilities),
        now=now,
    )


def revoke(tx: Transaction, *, by: Actor, agent_id: str, reason: str | None, now: datetime) -> None:
    """End the agent's credential for good; a second call changes nothing."""
    row = find(tx, agent_id=agent_id)
    if tx.count("agent_revoke", id=agent_id, revoked_by=by.actor, now=now) == 0:
        return
    audit.record(
        tx,
        by=by,
        action="agent.revoked",
        resource=f"agent:{agent_id}",
        metadata={
            "agent_id": agent_id,
            "reason": reason,
            "provider_connection_id": row["provider_connection_id"],
        },
        now=now,
    )


def find(tx: Transaction, *, agent_id: str) -> Mapping[str, Any]:
    """Return the agent as administrators see it, or refuse as not found."""
    row = tx.one("agent_find", id=agent_id)
    if row is None:
        raise AgentNotFoundError
    return row


def list_agents(
    tx: Transaction,
    *,
    provider_connection_id: str | None,
    status: str | None,
    cluster_name: str | None,
    provider_type: str | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Mapping[str, Any]]:
    """Return up to `limit` matching agents older than `before`, newest first."""
    return tx.many(
        "agent_list",
        provider_connection_id=provider_connection_id,
        status=status,
        cluster_name=cluster_name,
        provider_type=provider_type,
        before_at=before[0] if before else None,
        before_id=before[1] if before else None,
        limit=limit,
    )


def mark_stale(tx: Transaction, *, now: datetime, silent_for: timedelta, limit: int) -> int:
    """Mark active agents stale that were silent for that long; return how many."""
    cutoff = now - silent_for
    marked = 0
    for row in tx.many("agent_list_silent", cutoff=cutoff, limit=limit):
        if tx.count("agent_mark_stale", id=row["id"], cutoff=cutoff, now=now) == 0:
            continue  # A heartbeat came in between.
        marked += 1
        seen = row["last_seen_at"]
        audit.record(
            tx,
            by=SYSTEM,
            action="agent.stale",
            resource=f"agent:{row['id']}",
            metadata={
                "last_seen_at": seen.isoformat() if seen else None,
                "cutoff": cutoff.isoformat(),
            },
            now=now,
        )
    return marked
