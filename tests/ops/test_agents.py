"""Agents: enrolled by a token used once, alive by heartbeat, refused once revoked."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from sb.auth.tokens import new_token, token_hash
from sb.errors import SbError
from sb.ops import agents, enrollments
from sb.ops.callers import AgentCaller
from sb.ops.errors import (
    AgentAuthRejectedError,
    AgentNameRequiredError,
    AgentNameTakenError,
    AgentNotFoundError,
    ClusterNameMismatchError,
    ConnectionDisabledError,
    ConnectionNotFoundError,
    ConnectionUnavailableError,
    EnrollmentTokenConsumedError,
    EnrollmentTokenExpiredError,
    EnrollmentTokenInvalidError,
    EnrollmentTokenNotFoundError,
    EnrollmentTokenRevokedError,
    ProviderTypeMismatchError,
)
from sb.sealing import fingerprint
from tests.ops.job_steps import MISSING
from tests.ops.refusals import Asked, at_once, everything, kinds, refused
from tests.ops.world import MICROSECOND, NOW, TEST, World, at

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))


def redeem(
    world: World,
    hashed: bytes | None,
    now: datetime = NOW,
    secret: bytes | None = None,
    **claims: Any,
) -> AgentCaller:
    claims.setdefault("agent_name", "alpha")
    found: AgentCaller = world.run(
        enrollments.redeem,
        token_hash=hashed,
        secret_hash=secret or token_hash(new_token()),
        enrollment=enrollments.Enrollment(**claims),
        http_request_id="req-7",
        now=now,
    )
    return found


def issue(world: World, connection_id: str, **changes: Any) -> datetime:
    values: dict[str, Any] = {
        "name": None,
        "expires_in_seconds": None,
        "expected_cluster_name": None,
        "expected_provider_type": None,
    }
    ends_at: datetime = world.run(
        enrollments.issue,
        by=TEST,
        connection_id=connection_id,
        token_hash=token_hash(new_token()),
        **{**values, **changes},
        now=NOW,
    )
    return ends_at


def revoke_token(world: World, token_id: str) -> None:
    world.run(enrollments.revoke, by=TEST, token_id=token_id, reason="lost", now=NOW)


def token_row(world: World, hashed: bytes) -> Any:
    statement = "SELECT * FROM agent_enrollment_tokens WHERE token_hash = :hash"
    return world.rows(statement, hash=hashed)[0]


def agent_row(world: World, agent_id: str) -> Any:
    return world.rows("SELECT * FROM agents WHERE id = :id", id=agent_id)[0]


def rejected(reason: str) -> Asked:
    return ("agent.enrollment.rejected", "agent_enrollment_token", reason)


def authenticate(world: World, agent_id: str, secret: bytes) -> AgentCaller:
    found: AgentCaller = world.run(
        agents.authenticate, agent_id=agent_id, secret_hash=secret, now=NOW
    )
    return found


def heartbeat(world: World, agent: AgentCaller, now: datetime = NOW, **said: Any) -> None:
    values = {"last_status": None, "agent_version": None, "capabilities": None, **said}
    world.run(agents.heartbeat, agent=agent, **values, now=now)


def revoke(world: World, agent_id: str, now: datetime = NOW) -> None:
    world.run(agents.revoke, by=TEST, agent_id=agent_id, reason="left", now=now)


def test_issue_with_any_lifetime_clamps_it(world: World) -> None:
    connection = world.connection()
    expected = {None: 900, 0: 900, -5: 900, 1: 60, 60: 60, 600: 600, 10**6: 86400}
    for asked, seconds in expected.items():
        assert issue(world, connection, expires_in_seconds=asked) == at(seconds=seconds)
    events = world.events(action="agent.enrollment_token.created")
    assert {event.resource for event in events} == {f"provider_connection:{connection}"}
    for event in events:
        assert event.correlation_id == event.metadata["enrollment_token_id"]


def test_issue_for_a_connection_that_does_not_fit_is_refused(world: World) -> None:
    connection = world.connection()
    mismatch = {"expected_provider_type": "vault"}
    refused(world, ProviderTypeMismatchError, issue, world, connection, asks=None, **mismatch)
    refused(world, ConnectionNotFoundError, issue, world, MISSING, asks=None)
    world.write("UPDATE provider_connections SET status = 'disabled'")
    refused(world, ConnectionDisabledError, issue, world, connection, asks=None)


def test_redeem_makes_an_enrolled_agent_and_spends_the_token(world: World) -> None:
    connection = world.connection(cluster="east")
    hashed, secret = world.token(connection), token_hash(new_token())
    agent = redeem(
        world,
        hashed,
        at(seconds=9),
        secret,
        agent_name=" alpha ",
        region="eu",
        agent_version="1.2",
        capabilities=["read"],
        public_key=KEY,
    )
    row = agent_row(world, agent.agent_id)
    assert (row["name"], row["status"], row["last_seen_at"]) == ("alpha", "enrolled", None)
    # What it did not say comes from the connection.
    assert (row["provider_type"], row["cluster_name"]) == ("file", "east")
    assert (row["provider_connection_id"], row["region"]) == (connection, "eu")
    assert (bytes(row["secret_hash"]), bytes(row["public_key"])) == (secret, KEY)
    assert row["public_key_fingerprint"] == fingerprint(KEY)
    token = token_row(world, hashed)
    assert token["consumed_at"] == at(seconds=9)
    assert token["consumed_by_agent_id"] == agent.agent_id
    (event,) = world.events(action="agent.enrolled")
    assert (event.actor, event.resource) == (agent.actor, f"agent:{agent.agent_id}")
    assert (event.correlation_id, event.http_request_id) == (token["id"], "req-7")
    assert hashed.hex() not in repr(world.events())
    assert authenticate(world, agent.agent_id, secret).name == "alpha"


def test_redeem_refuses_in_the_documented_order(world: World) -> None:
    # A token with everything wrong at once; each step mends what was refused (spec §1.4, A3).
    connection = world.connection(cluster="east")
    expected = {"expected_provider_type": "file", "expected_cluster_name": "east"}
    hashed = world.token(connection, **expected)
    spent_by = world.agent(connection, cluster_name="east").agent_id
    wrong: dict[str, Any] = {"agent_name": " ", "provider_type": "vault", "cluster_name": "west"}
    world.write("UPDATE provider_connections SET status = 'disabled'")
    world.write(
        "UPDATE agent_enrollment_tokens SET revoked_at = :now, revoked_by = 'x', "
        "consumed_at = :now, consumed_by_agent_id = :agent WHERE token_hash = :hash",
        now=NOW,
        agent=spent_by,
        hash=hashed,
    )
    late = at(seconds=900)

    def step(error: type[SbError], reason: str | None, token: bytes | None = hashed) -> None:
        asks = rejected(reason) if reason else None
        refused(world, error, redeem, world, token, late, asks=asks, **wrong)

    def mend(change: str) -> None:
        statement = f"UPDATE agent_enrollment_tokens SET {change} WHERE token_hash = :hash"
        world.write(statement, hash=hashed)

    step(EnrollmentTokenInvalidError, "token_invalid", None)
    step(AgentNameRequiredError, None, token_hash("unknown"))
    wrong["agent_name"] = "alpha"
    step(EnrollmentTokenInvalidError, "token_invalid", token_hash("unknown"))
    step(EnrollmentTokenRevokedError, "token_revoked")
    mend("revoked_at = NULL, revoked_by = NULL")
    step(EnrollmentTokenConsumedError, "token_already_consumed")
    mend("consumed_at = NULL, consumed_by_agent_id = NULL")
    step(EnrollmentTokenExpiredError, "token_expired")
    late -= MICROSECOND
    step(ConnectionUnavailableError, "provider_connection_unavailable")
    world.write("UPDATE provider_connections SET status = 'active'")
    step(ProviderTypeMismatchError, "provider_type_mismatch")
    wrong["provider_type"] = "file"
    step(ClusterNameMismatchError, "cluster_name_mismatch")
    # An expected cluster must be named: silence is not agreement.
    wrong["cluster_name"] = None
    step(ClusterNameMismatchError, "cluster_name_mismatch")
    wrong["cluster_name"] = "east"
    # However often it was refused, the token is still good for once.
    assert redeem(world, hashed, late, **wrong).cluster_name == "east"
    step(EnrollmentTokenConsumedError, "token_already_consumed")


def test_redeem_with_a_taken_name_leaves_the_token_unspent(world: World) -> None:
    connection = world.connection()
    first = redeem(world, world.token(connection))
    hashed = world.token(connection)
    error = refused(world, AgentNameTakenError, redeem, world, hashed, asks=None)
    assert error.status == 409
    revoke(world, first.agent_id)
    # A revoked agent gives its name back.
    assert redeem(world, hashed).agent_id != first.agent_id


def test_redeem_ten_times_at_once_makes_one_agent(world: World) -> None:
    hashed = world.token(world.connection())
    outcomes = at_once(
        [lambda name=f"agent-{n}": redeem(world, hashed, agent_name=name) for n in range(10)]
    )
    assert kinds(outcomes) == {"ok": 1, "enrollment_token_already_consumed": 9}
    assert len(world.rows("SELECT id FROM agents")) == 1
    assert len(world.events(action="agent.enrolled")) == 1


def test_revoke_token_ends_it_once(world: World) -> None:
    connection = world.connection()
    open_id = token_row(world, world.token(connection))["id"]
    spent = world.token(connection)
    redeem(world, spent)
    revoke_token(world, open_id)
    (event,) = world.events(action="agent.enrollment_token.revoked")
    assert (event.correlation_id, event.metadata["reason"]) == (open_id, "lost")
    # Used, revoked and unknown look the same.
    for token_id in (open_id, token_row(world, spent)["id"], MISSING):
        refused(world, EnrollmentTokenNotFoundError, revoke_token, world, token_id, asks=None)


def test_authenticate_without_the_live_secret_is_refused_alike(world: World) -> None:
    connection, secret = world.connection(), token_hash(new_token())
    agent = redeem(world, world.token(connection), secret=secret)
    agent_id = agent.agent_id
    told = []
    for found, shown, reason in (
        (agent_id, token_hash("wrong"), "bad_secret"),
        (MISSING, secret, "unknown_agent"),
        # An unknown agent's place-holder digest is not a key that opens it.
        (MISSING, bytes(32), "unknown_agent"),
    ):
        asks = ("agent.auth.rejected", f"agent:{found}", reason)
        told.append(
            refused(world, AgentAuthRejectedError, authenticate, world, found, shown, asks=asks)
        )
    world.write("UPDATE agents SET status = 'disabled'")
    asks = ("agent.auth.rejected", f"agent:{agent_id}", "disabled")
    told.append(
        refused(world, AgentAuthRejectedError, authenticate, world, agent_id, secret, asks=asks)
    )
    revoke(world, agent_id)
    asks = ("agent.auth.rejected", f"agent:{agent_id}", "revoked")
    told.append(
        refused(world, AgentAuthRejectedError, authenticate, world, agent_id, secret, asks=asks)
    )
    assert {(error.public_message, str(error.details)) for error in told} == {
        (told[0].public_message, "{}")
    }


def test_heartbeat_makes_an_enrolled_or_stale_agent_active(world: World) -> None:
    agent = world.agent(world.connection(), agent_version="1", capabilities=["read"])
    heartbeat(world, agent, at(seconds=5), last_status="busy", agent_version="2")
    row = agent_row(world, agent.agent_id)
    assert (row["status"], row["last_seen_at"]) == ("active", at(seconds=5))
    assert (row["last_status"], row["agent_version"]) == ("busy", "2")
    assert row["capabilities"] == ["read"]
    silent = {"silent_for": timedelta(minutes=5), "limit": 10}
    assert world.run(agents.mark_stale, now=at(minutes=9), **silent) == 1
    # A bare heartbeat keeps what was said before, and no heartbeat is audited.
    audited = world.events()
    heartbeat(world, agent, at(minutes=10), capabilities=[])
    row = agent_row(world, agent.agent_id)
    assert (row["status"], row["last_status"], row["agent_version"]) == ("active", "busy", "2")
    assert row["capabilities"] == []
    assert world.events() == audited


@pytest.mark.parametrize("status", ["error", "disabled"])
def test_heartbeat_keeps_a_status_it_does_not_own(world: World, status: str) -> None:
    agent = world.agent(world.connection())
    world.write("UPDATE agents SET status = :status", status=status)
    heartbeat(world, agent, at(seconds=5))
    assert agent_row(world, agent.agent_id)["status"] == status


def test_revoke_ends_the_agent_for_good(world: World) -> None:
    agent = world.agent(world.connection())
    revoke(world, agent.agent_id, at(seconds=5))
    row = agent_row(world, agent.agent_id)
    assert (row["status"], row["revoked_at"]) == ("revoked", at(seconds=5))
    assert row["revoked_by"] == TEST.actor
    (event,) = world.events(action="agent.revoked")
    assert event.metadata == {
        "agent_id": agent.agent_id,
        "reason": "left",
        "provider_connection_id": agent.provider_connection_id,
    }
    before = everything(world)
    revoke(world, agent.agent_id, at(seconds=9))
    assert everything(world) == before
    refused(world, AgentAuthRejectedError, heartbeat, world, agent, asks=None)
    refused(world, AgentNotFoundError, revoke, world, MISSING, asks=None)


def test_mark_stale_after_the_silence_takes_active_agents_only(world: World) -> None:
    connection = world.connection()
    seen, fresh, enrolled, revoked = (world.agent(connection) for _ in range(4))
    for agent in (seen, revoked):
        heartbeat(world, agent)
    heartbeat(world, fresh, at(minutes=4))
    revoke(world, revoked.agent_id)
    # One that was minted and never heard counts from its birth.
    minted = world.run(
        agents.mint,
        by=TEST,
        name="minted",
        secret_hash=token_hash("m"),
        scope={},
        public_key=None,
        now=NOW,
    )
    silent = {"silent_for": timedelta(minutes=5), "limit": 10}
    assert world.run(agents.mark_stale, now=at(minutes=5), **silent) == 0
    late = at(minutes=5) + MICROSECOND
    assert world.run(agents.mark_stale, now=late, **{**silent, "limit": 1}) == 1
    assert world.run(agents.mark_stale, now=late, **silent) == 1
    assert world.run(agents.mark_stale, now=late, **silent) == 0
    status = {row["id"]: row["status"] for row in world.rows("SELECT id, status FROM agents")}
    assert (status[seen.agent_id], status[minted]) == ("stale", "stale")
    assert (status[fresh.agent_id], status[enrolled.agent_id]) == ("active", "enrolled")
    marked = world.events(action="agent.stale")
    assert {event.resource for event in marked} == {f"agent:{seen.agent_id}", f"agent:{minted}"}
    assert {event.actor for event in marked} == {"system:worker"}


def test_set_public_key_registers_and_rotates_it(world: World) -> None:
    secret = token_hash(new_token())
    agent = redeem(world, world.token(world.connection()), secret=secret)
    for key in (KEY, KEY, OTHER_KEY):
        caller = authenticate(world, agent.agent_id, secret)
        world.run(agents.set_public_key, agent=caller, public_key=key, now=NOW)
        assert authenticate(world, agent.agent_id, secret).public_key == key
    events = world.events(action="agent.public_key.set")
    # The same key again is no change and leaves no row.
    assert [event.metadata["public_key_sha"] for event in events] == [
        fingerprint(KEY),
        fingerprint(OTHER_KEY),
    ]
    assert {event.actor for event in events} == {agent.actor}
