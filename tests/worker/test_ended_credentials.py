"""Sessions and enrolment tokens that have ended are kept a while, then deleted; no others are."""

from __future__ import annotations

import pytest

from sb.auth.tokens import new_token, token_hash
from sb.clock import utc_now
from sb.ids import new_id
from sb.ops import enrollments
from sb.ops.errors import EnrollmentTokenExpiredError
from sb_worker.loop import Swept
from tests.ops.world import World
from tests.worker.due import ago, ahead, keep_session, keep_token, sweeps

ONE = Swept(counts={"deleted": 1}, more=False)


async def test_sessions_are_kept_a_week_past_their_end_however_they_ended(world: World) -> None:
    user_id = world.person("whoever", "developer").user_id
    for number, ends in enumerate((ago(days=7, minutes=1), ago(days=6, hours=23), ahead(hours=1))):
        keep_session(world, user_id, number, ends)
    world.write("UPDATE sessions SET revoked_at = :at", at=ago(days=8))

    assert await sweeps(world)["sessions-purge"].batch() == ONE

    left = world.rows("SELECT token_hash FROM sessions ORDER BY token_hash")
    assert [int.from_bytes(bytes(row["token_hash"]), "big") for row in left] == [1, 2]
    (event,) = world.events(action="session.purge")
    assert (event.actor, event.resource) == ("system:worker", "session:ended")
    assert event.metadata == {"deleted": 1}


async def test_tokens_are_kept_a_day_past_their_end_used_or_not(world: World) -> None:
    connection = world.connection()
    for number, ends in enumerate((ago(days=1, minutes=1), ago(hours=23), ahead(minutes=5))):
        keep_token(world, connection, number, ends)
    world.write("UPDATE agent_enrollment_tokens SET consumed_at = :at", at=ago(days=2))

    assert await sweeps(world)["enrollment-tokens-expired"].batch() == ONE

    left = world.rows("SELECT token_hash FROM agent_enrollment_tokens ORDER BY token_hash")
    assert [int.from_bytes(bytes(row["token_hash"]), "big") for row in left] == [1, 2]
    (event,) = world.events(action="agent.enrollment_token.purge")
    assert (event.actor, event.resource) == ("system:worker", "agent_enrollment_token:ended")
    assert event.metadata == {"deleted": 1}


async def test_an_agent_that_comes_late_is_told_that_its_token_expired(world: World) -> None:
    token, connection = new_token(), world.connection()
    world.insert(
        "agent_enrollment_tokens",
        id=new_id(),
        provider_connection_id=connection,
        token_hash=token_hash(token),
        expires_at=ago(minutes=10),
        created_by="user:someone",
        created_at=ago(hours=1),
    )
    await sweeps(world)["enrollment-tokens-expired"].batch()
    with pytest.raises(EnrollmentTokenExpiredError):
        world.run(
            enrollments.redeem,
            token_hash=token_hash(token),
            secret_hash=b"s" * 32,
            enrollment=enrollments.Enrollment(agent_name="late"),
            http_request_id=None,
            now=utc_now(),
        )
