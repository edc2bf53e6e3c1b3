"""Enrolment: a short-lived token, used once, turns a process in a network into an agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sb.db.engine import Transaction
from sb.errors import Denial, SbError
from sb.ids import new_id
from sb.ops import agents, audit, connections
from sb.ops.callers import Actor, AgentCaller, System
from sb.ops.errors import (
    AgentNameRequiredError,
    ClusterNameMismatchError,
    ConnectionDisabledError,
    ConnectionUnavailableError,
    EnrollmentTokenConsumedError,
    EnrollmentTokenExpiredError,
    EnrollmentTokenInvalidError,
    EnrollmentTokenNotFoundError,
    EnrollmentTokenRevokedError,
    ProviderTypeMismatchError,
)

DEFAULT_LIFETIME_SECONDS = 900
#: A token's row outlives it by this, so that a late agent is told what became of its token.
KEPT_FOR = timedelta(days=1)
LIFETIME_SECONDS = range(60, 86401)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrollment:
    """What an enrolling agent says about itself."""

    agent_name: str
    provider_type: str | None = None
    cluster_name: str | None = None
    region: str | None = None
    agent_version: str | None = None
    capabilities: Sequence[str] = ()
    public_key: bytes | None = None


def issue(
    tx: Transaction,
    *,
    by: Actor,
    connection_id: str,
    token_hash: bytes,
    name: str | None,
    expires_in_seconds: int | None,
    expected_cluster_name: str | None,
    expected_provider_type: str | None,
    now: datetime,
) -> datetime:
    """Store a token for one enrolment with this connection and return when it expires."""
    connection = connections.find(tx, connection_id=connection_id)
    if connection["status"] != "active":
        raise ConnectionDisabledError
    if expected_provider_type not in (None, connection["type"]):
        raise ProviderTypeMismatchError
    seconds = expires_in_seconds or 0
    if seconds <= 0:
        seconds = DEFAULT_LIFETIME_SECONDS
    seconds = min(max(seconds, LIFETIME_SECONDS.start), LIFETIME_SECONDS.stop - 1)
    token_id, expires_at = new_id(), now + timedelta(seconds=seconds)
    tx.count(
        "enrollment_insert",
        id=token_id,
        provider_connection_id=connection_id,
        name=name,
        token_hash=token_hash,
        expected_cluster_name=expected_cluster_name,
        expected_provider_type=expected_provider_type,
        expires_at=expires_at,
        created_by=by.actor,
        now=now,
    )
    audit.record(
        tx,
        by=by,
        action="agent.enrollment_token.created",
        resource=f"provider_connection:{connection_id}",
        correlation_id=token_id,
        metadata={
            "provider_connection_id": connection_id,
            "enrollment_token_id": token_id,
            "expires_at": expires_at.isoformat(),
            "expected_cluster_name": expected_cluster_name,
            "expected_provider_type": expected_provider_type,
        },
        now=now,
    )
    return expires_at


def revoke(tx: Transaction, *, by: Actor, token_id: str, reason: str | None, now: datetime) -> None:
    """Revoke an open token; one that was used, revoked or never existed is not found."""
    row = tx.one("enrollment_revoke", id=token_id, revoked_by=by.actor, now=now)
    if row is None:
        raise EnrollmentTokenNotFoundError
    audit.record(
        tx,
        by=by,
        action="agent.enrollment_token.revoked",
        resource=f"provider_connection:{row['provider_connection_id']}",
        correlation_id=token_id,
        metadata={
            "enrollment_token_id": token_id,
            "provider_connection_id": row["provider_connection_id"],
            "reason": reason,
        },
        now=now,
    )


def redeem(
    tx: Transaction,
    *,
    token_hash: bytes | None,
    secret_hash: bytes,
    enrollment: Enrollment,
    http_request_id: str | None,
    now: datetime,
) -> AgentCaller:
    """Spend the token and create its agent, both or neither; a refused token stays unspent."""
    # 1. The token, in the order a caller may learn about it.
    if token_hash is None:
        raise _refused(EnrollmentTokenInvalidError, "token_invalid")
    if not enrollment.agent_name.strip():
        raise AgentNameRequiredError
    token = tx.one("enrollment_find_by_hash", token_hash=token_hash)
    if token is None:
        raise _refused(EnrollmentTokenInvalidError, "token_invalid")
    _check_token(token, now=now)
    provider_type, cluster = _check_claims(token, enrollment)
    # 2. The agent and the spent token together; of two racing calls one finds it spent.
    agent = AgentCaller(
        agent_id=new_id(),
        name=enrollment.agent_name.strip(),
        provider_connection_id=token["provider_connection_id"],
        cluster_name=cluster,
        provider_type=provider_type,
        public_key=enrollment.public_key,
        http_request_id=http_request_id,
    )
    agents.insert(
        tx,
        agent_id=agent.agent_id,
        name=agent.name,
        secret_hash=secret_hash,
        status="enrolled",
        public_key=agent.public_key,
        provider_connection_id=agent.provider_connection_id,
        cluster_name=cluster,
        provider_type=provider_type,
        region=enrollment.region,
        agent_version=enrollment.agent_version,
        capabilities=enrollment.capabilities,
        now=now,
    )
    if tx.count("enrollment_consume", id=token["id"], agent_id=agent.agent_id, now=now) == 0:
        raise _refused(EnrollmentTokenConsumedError, "token_already_consumed")
    audit.record(
        tx,
        by=agent,
        action="agent.enrolled",
        resource=f"agent:{agent.agent_id}",
        correlation_id=token["id"],
        metadata={
            "agent_id": agent.agent_id,
            "provider_connection_id": agent.provider_connection_id,
            "cluster_name": cluster,
            "provider_type": provider_type,
            "agent_version": enrollment.agent_version,
            "capabilities": list(enrollment.capabilities),
        },
        now=now,
    )
    return agent


def purge(tx: Transaction, *, now: datetime, limit: int) -> int:
    """Delete up to `limit` tokens past their end, used or not; one audit row tells how many."""
    deleted = tx.count("enrollment_purge", ended_before=now - KEPT_FOR, limit=limit)
    if deleted:
        audit.record(
            tx,
            by=System(part="worker"),
            action="agent.enrollment_token.purge",
            resource="agent_enrollment_token:ended",
            metadata={"deleted": deleted},
            now=now,
        )
    return deleted


def _check_token(token: Mapping[str, Any], *, now: datetime) -> None:
    if token["revoked_at"] is not None:
        raise _refused(EnrollmentTokenRevokedError, "token_revoked")
    if token["consumed_at"] is not None:
        raise _refused(EnrollmentTokenConsumedError, "token_already_consumed")
    if token["expires_at"] <= now:
        raise _refused(EnrollmentTokenExpiredError, "token_expired")
    if token["connection_status"] != "active":
        raise _refused(ConnectionUnavailableError, "provider_connection_unavailable")


def _check_claims(token: Mapping[str, Any], enrollment: Enrollment) -> tuple[str, str | None]:
    """Return the provider type and cluster the agent will cover; they come from the token first."""
    provider_type = enrollment.provider_type or token["connection_type"]
    expected_type = token["expected_provider_type"] or token["connection_type"]
    if provider_type != expected_type or provider_type != token["connection_type"]:
        raise _refused(ProviderTypeMismatchError, "provider_type_mismatch")
    expected_cluster = token["expected_cluster_name"] or token["connection_cluster_name"]
    if expected_cluster is not None and enrollment.cluster_name not in (None, expected_cluster):
        raise _refused(ClusterNameMismatchError, "cluster_name_mismatch")
    if token["expected_cluster_name"] is not None and enrollment.cluster_name is None:
        raise _refused(ClusterNameMismatchError, "cluster_name_mismatch")
    return provider_type, enrollment.cluster_name or expected_cluster


def _refused(error: type[SbError], reason: str) -> SbError:
    return error(audit=Denial("agent.enrollment.rejected", "agent_enrollment_token", reason=reason))
