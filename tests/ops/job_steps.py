"""Steps that tests of jobs and of what follows from them take: approve, renew, recover."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sb.auth.tokens import new_token, token_hash
from sb.ids import new_id
from sb.ops import agents, jobs
from sb.ops.callers import AgentCaller, Caller
from tests.ops.world import NOW, TEST, Held, World

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
LEASE = timedelta(seconds=30)
#: Somebody who asks, and somebody who decides.
People = tuple[Caller, Caller]


def people_of(world: World) -> People:
    return world.person("dev", "developer"), world.person("approver", "approver")


def approved(world: World, people: People, *keys: str, kind: str = "read", **changes: Any) -> str:
    """Return an approved request of this kind, with its job queued."""
    submit = world.patch if kind == "patch" else world.read
    request_id = submit(people[0], *keys, **changes)
    world.approve(people[1], request_id, changes.get("now", NOW))
    return request_id


def minted(world: World, **scope: str) -> AgentCaller:
    """Return an agent without a connection, as the edge would know it."""
    secret = token_hash(new_token())
    agent_id = world.run(
        agents.mint,
        by=TEST,
        name=f"minted-{new_id()}",
        secret_hash=secret,
        scope=scope,
        public_key=None,
        now=NOW,
    )
    found: AgentCaller = world.run(
        agents.authenticate, agent_id=agent_id, secret_hash=secret, now=NOW
    )
    return found


def renew(world: World, agent: AgentCaller, held: Held, now: datetime) -> datetime:
    ends_at: datetime = world.run(
        jobs.renew, agent=agent, job_id=held.job.id, lease_token_hash=held.lease, now=now
    )
    return ends_at


def recover(world: World, now: datetime, limit: int = 10) -> dict[str, int]:
    return dict(world.run(jobs.recover, now=now, limit=limit))


def claimed(world: World, agent: AgentCaller, now: datetime = NOW) -> str | None:
    held = world.claim(agent, now)
    return None if held is None else held.job.request_id
