"""What each sweep is there for: rows that are due, planted as time would leave them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sb.clock import utc_now
from sb.ids import new_id
from sb.ops import agents
from sb.ops.callers import AgentCaller, Caller
from sb.settings import load
from sb_worker.settings import WorkerSettings
from sb_worker.sweeps import SWEEPS, Task
from tests.ops.world import World

LIMIT = 500


def ago(**earlier: float) -> datetime:
    """Return the time that much before now: sweeps read the real clock."""
    return utc_now() - timedelta(**earlier)


def ahead(**later: float) -> datetime:
    """Return the time that much after now."""
    return utc_now() + timedelta(**later)


def settings(**more: str) -> WorkerSettings:
    """Return settings of a worker whose database is opened elsewhere."""
    return load(WorkerSettings, {"DATABASE_URL": "sqlite:///elsewhere.db", **more})


def interval_of(name: str) -> str:
    """Return the setting of a sweep's cadence."""
    shorter = {"enrollment-tokens-expired": "ENROLLMENT_TOKENS"}
    return f"SB_WORKER_{shorter.get(name, name.upper().replace('-', '_'))}_INTERVAL"


def sweeps(world: World, limit: int = LIMIT, **more: str) -> Mapping[str, Task]:
    """Return every sweep of the worker over the world's database, by name."""
    found = settings(SB_WORKER_SWEEP_BATCH_SIZE=str(limit), **more)
    tasks = [sweep(world.db, found) for sweep in SWEEPS]
    return {task.name: task for task in tasks}


@dataclass(frozen=True, kw_only=True)
class Crew:
    """A person who asks, one who approves, and an agent that works."""

    asks: Caller
    approves: Caller
    agent: AgentCaller

    @classmethod
    def build(cls, world: World) -> Crew:
        connection = world.connection()
        return cls(
            asks=world.person("dev", "developer"),
            approves=world.person("approver", "approver"),
            agent=world.agent(connection),
        )

    def approved(self, world: World, key: str = "A", kind: str = "read", **earlier: float) -> str:
        """Return a request submitted and approved that long ago."""
        then = ago(**earlier)
        submit = world.patch if kind == "patch" else world.read
        request_id = submit(self.asks, key, now=then)
        world.approve(self.approves, request_id, now=then)
        return request_id

    def claimed(self, world: World, key: str = "A", kind: str = "read", **earlier: float) -> str:
        """Return a request whose job was claimed that long ago and never heard of again."""
        request_id = self.approved(world, key, kind, **earlier)
        held = world.held(self.agent, now=ago(**earlier))
        assert held.job.request_id == request_id
        return request_id


def end_of_attempts(world: World, request_id: str) -> None:
    """Leave the request's claimed job without another attempt."""
    statement = "UPDATE sync_jobs SET attempts = max_attempts WHERE request_id = :id"
    assert world.write(statement, id=request_id) == 1


def heard(world: World, agent: AgentCaller, **earlier: float) -> None:
    """Let the agent's last sign of life be that long ago."""
    world.run(
        agents.heartbeat,
        agent=agent,
        last_status=None,
        agent_version=None,
        capabilities=None,
        now=ago(**earlier),
    )


def agent_status(world: World, agent: AgentCaller) -> str:
    (row,) = world.rows("SELECT status FROM agents WHERE id = :id", id=agent.agent_id)
    return str(row["status"])


def keep_key(world: World, key: str, expires_at: datetime) -> None:
    """Keep an idempotency key until then."""
    world.insert(
        "idempotency_keys",
        actor="user:someone",
        key=key,
        route="POST /requests",
        body_sha256=b"0" * 32,
        created_at=ago(days=2),
        expires_at=expires_at,
    )


def plant_wraps(world: World, count: int) -> None:
    world.patch(Crew.build(world).asks, *(f"K{n}" for n in range(count)), now=ago(days=8))


def plant_requests(world: World, count: int) -> None:
    crew = Crew.build(world)
    for n in range(count):
        world.read(crew.asks, f"K{n}", now=ago(days=15))


def plant_jobs(world: World, count: int) -> None:
    crew = Crew.build(world)
    for n in range(count):
        crew.claimed(world, f"K{n}", minutes=1)


def plant_agents(world: World, count: int) -> None:
    connection = world.connection()
    for _ in range(count):
        heard(world, world.agent(connection, now=ago(hours=1)), minutes=6)


def plant_keys(world: World, count: int) -> None:
    for n in range(count):
        keep_key(world, f"key-{n}", ago(minutes=1))


def plant_sessions(world: World, count: int) -> None:
    user_id = world.person("whoever", "developer").user_id
    for n in range(count):
        keep_session(world, user_id, n, ago(days=7, minutes=1))


def keep_session(world: World, user_id: str, number: int, expires_at: datetime) -> None:
    """Keep a session that ends, or has ended, then."""
    world.insert(
        "sessions",
        id=new_id(),
        user_id=user_id,
        token_hash=number.to_bytes(32, "big"),
        created_at=ago(days=9),
        expires_at=expires_at,
        idle_expires_at=expires_at,
    )


def plant_tokens(world: World, count: int) -> None:
    connection = world.connection()
    for n in range(count):
        keep_token(world, connection, n, ago(days=1, minutes=1))


def keep_token(world: World, connection: str, number: int, expires_at: datetime) -> None:
    """Keep an enrolment token that ends, or has ended, then."""
    world.insert(
        "agent_enrollment_tokens",
        id=new_id(),
        provider_connection_id=connection,
        token_hash=number.to_bytes(32, "big"),
        expires_at=expires_at,
        created_by="user:someone",
        created_at=ago(days=9),
    )


@dataclass(frozen=True, kw_only=True)
class Due:
    """How to make a sweep's work, the count that tells of it, and the trail it leaves."""

    plant: Callable[[World, int], None]
    effect: str
    actor: str | None
    action: str | None
    one_row_each: bool = True

    def trail(self, world: World) -> Counter[str]:
        """Return how many audit rows of this sweep each thing has."""
        if self.action is None:
            return Counter()
        found = world.events(action=self.action, actor=self.actor)
        return Counter(event.resource for event in found)


DUE: Mapping[str, Due] = {
    "wraps-expired": Due(
        plant=plant_wraps,
        effect="deleted",
        actor="system:worker",
        action="wrap.purge",
        one_row_each=False,
    ),
    "requests-expired": Due(
        plant=plant_requests, effect="expired", actor="system:worker", action="request.expired"
    ),
    "jobs-recovery": Due(
        plant=plant_jobs, effect="requeued", actor="system:jobs", action="job.requeued"
    ),
    "agents-stale": Due(
        plant=plant_agents, effect="flipped", actor="system:worker", action="agent.stale"
    ),
    "idempotency-expired": Due(plant=plant_keys, effect="deleted", actor=None, action=None),
    "sessions-purge": Due(
        plant=plant_sessions,
        effect="deleted",
        actor="system:worker",
        action="session.purge",
        one_row_each=False,
    ),
    "enrollment-tokens-expired": Due(
        plant=plant_tokens,
        effect="deleted",
        actor="system:worker",
        action="agent.enrollment_token.purge",
        one_row_each=False,
    ),
}


def changed(counts: Mapping[str, int]) -> dict[str, Any]:
    """Return the counts that are not zero."""
    return {effect: count for effect, count in counts.items() if count}
