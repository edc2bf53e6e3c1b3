"""Refusals in the trail: each on record, until one caller has left too many of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from sb.ops import audit
from tests import servers
from tests import stack as stacks
from tests.stack import Person, Stack

LIMIT = 3


@pytest.fixture
def redis_url(request: pytest.FixtureRequest, database_url: str) -> str | None:
    """Redis beside Postgres, nothing beside SQLite."""
    if not database_url.startswith("postgres"):
        return None
    return str(request.getfixturevalue("redis_server").url)


async def rows(stack: Stack, action: str) -> list[audit.AuditEvent]:
    return await stack.db.read(
        audit.list_events, filters=audit.Filters(action=action), before=None, limit=100
    )


async def refused(person: Person, times: int) -> None:
    for _ in range(times):
        assert (await person.get("/agents")).status_code == 403


def suppressed(stack: Stack) -> float:
    found = stack.state.registry.get_sample_value("audit_denials_suppressed_total")
    assert found is not None
    return found


def running(database_url: str, redis_url: str | None, root: Path) -> Any:
    limit = {"SB_RATE_AUDIT_DENIALS": str(LIMIT)}
    return stacks.running(database_url, redis_url, root, **limit)


async def test_refusals_over_the_limit_leave_one_row_and_are_counted(
    database_url: str, redis_url: str | None, tmp_path: Path
) -> None:
    async with running(database_url, redis_url, tmp_path) as stack:
        loud, quiet = await stack.person("loud"), await stack.person("quiet")
        await refused(loud, LIMIT)
        assert (len(await rows(stack, "access.denied")), suppressed(stack)) == (LIMIT, 0)
        assert await rows(stack, "audit.denials.suppressed") == []

        await refused(loud, 4)
        assert len(await rows(stack, "access.denied")) == LIMIT
        (told,) = await rows(stack, "audit.denials.suppressed")
        actor = f"user:{loud.id}"
        assert (told.actor, told.resource, told.status) == (actor, actor, "denied")
        assert told.metadata == {
            "first_action": "access.denied",
            "limit": LIMIT,
            "window_seconds": 60,
        }
        assert suppressed(stack) == 4

        # Nobody else's refusals are left out for it.
        await refused(quiet, 1)
        actors = [event.actor for event in await rows(stack, "access.denied")]
        assert (actors[0], len(actors)) == (f"user:{quiet.id}", LIMIT + 1)


async def test_refusals_without_a_caller_count_by_address(
    database_url: str, redis_url: str | None, tmp_path: Path
) -> None:
    async with (
        running(database_url, redis_url, tmp_path) as stack,
        httpx.AsyncClient(base_url=stack.url) as http,
    ):
        for _ in range(LIMIT + 2):
            body = {"enrollment_token": "x" * 43, "agent_name": "a"}
            answer = await http.post("/api/v1/agents/enroll", json=body)
            assert answer.status_code == 401
        assert len(await rows(stack, "agent.enrollment.rejected")) == LIMIT
        (told,) = await rows(stack, "audit.denials.suppressed")
        assert (told.actor, told.resource) == ("anonymous", "address:127.0.0.1")


@pytest.mark.parametrize("body", [{"email": "who@example.com", "password": "wrong"}, {}])
async def test_refused_sign_ins_are_never_left_out(
    database_url: str, redis_url: str | None, tmp_path: Path, body: dict[str, str]
) -> None:
    async with (
        running(database_url, redis_url, tmp_path) as stack,
        httpx.AsyncClient(base_url=stack.url) as http,
    ):
        for _ in range(LIMIT + 2):
            answer = await http.post("/api/v1/auth/login", json=body)
            assert answer.status_code in (400, 401)
        assert len(await rows(stack, "auth.login")) == LIMIT + 2
        assert suppressed(stack) == 0


async def test_refused_credentials_of_agents_are_never_left_out(
    database_url: str, redis_url: str | None, tmp_path: Path
) -> None:
    async with running(database_url, redis_url, tmp_path) as stack:
        agent = await stack.enroll(await stack.connection())
        agent.http.headers["X-Agent-Secret"] = "x" * 43
        for _ in range(LIMIT + 2):
            assert (await agent.post("/heartbeat", {})).status_code == 401
        assert len(await rows(stack, "agent.auth.rejected")) == LIMIT + 2


async def test_every_refusal_is_on_record_while_redis_is_away(
    postgres_url: str, tmp_path: Path
) -> None:
    with servers.redis() as redis:
        async with running(postgres_url, redis.url, tmp_path) as stack:
            person = await stack.person("loud")
            redis.stop()
            await refused(person, LIMIT + 2)
            assert len(await rows(stack, "access.denied")) == LIMIT + 2
            assert suppressed(stack) == 0
