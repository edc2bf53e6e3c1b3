"""Where the request machine walks: who there is, under which workflows, what chance may pick."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from sb.ids import new_id
from sb.ops.callers import AgentCaller, Caller
from tests.ops.tenancy import Tenancy
from tests.ops.world import MICROSECOND, NOW, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A workflow, as the request's snapshot keeps it."""

    quorum: int = 1
    auto: bool = False
    own_vote: bool = False
    needs_role: bool = False
    created: timedelta = timedelta(days=7)
    approved: timedelta = timedelta(hours=1)
    claimed: timedelta = timedelta(minutes=5)
    lives: timedelta = timedelta(days=14)


NOWHERE: frozenset[str] = frozenset()


@dataclass(kw_only=True, eq=False)
class Person:
    """Somebody with the places where they may ask and decide; either lets them see."""

    full: Caller
    asking: frozenset[str] = NOWHERE
    deciding: frozenset[str] = NOWHERE
    has_role: bool = False
    #: Whether they lost all of it for now: their account is switched off, or their grants ended.
    lost: bool = False

    @property
    def actor(self) -> str:
        return self.full.actor

    @property
    def caller(self) -> Caller:
        return dataclasses.replace(self.full, grants=()) if self.lost else self.full

    @property
    def asks(self) -> frozenset[str]:
        return NOWHERE if self.lost else self.asking

    @property
    def decides(self) -> frozenset[str]:
        return NOWHERE if self.lost else self.deciding


@dataclass(frozen=True, kw_only=True, eq=False)
class Worker:
    """An agent and the connection it is enrolled for."""

    caller: AgentCaller
    line: str

    @property
    def actor(self) -> str:
        return self.caller.actor


PROJECT = frozenset({"dev", "prod"})
#: The environments of one project, and requests without a project.
PLACES = frozenset({"free", *PROJECT})

PEOPLE = ("dev", "mate", "ann", "bob", "root", "local", "stranger")
#: Each worker's connection; the last one shares the first one's cluster, and nothing else.
WORKERS = {"east": "east", "east2": "east", "west": "west", "next": "next"}
FLOWS = {
    "one": Flow(),
    "two": Flow(quorum=2),
    "self": Flow(own_vote=True),
    "role": Flow(needs_role=True),
    "auto": Flow(quorum=0, auto=True),
    # Every end of this one comes within the life of a lease or two, that of its job within one.
    "brief": Flow(
        created=timedelta(seconds=50),
        approved=timedelta(seconds=25),
        claimed=timedelta(seconds=20),
        lives=timedelta(seconds=80),
    ),
}
#: Mostly who may ask, so that most walks get past the door.
ASKING = ("dev", "mate", "root", "local", "dev", "local", "ann", "stranger")
KEYS = ("A", "B")
OUTCOMES = st.sampled_from(["succeeded", "succeeded", "failed", "retryable", "retryable"])
#: Who presents a lease: its own agent, mostly.
PRESENTED_BY = st.sampled_from(["", "", "", "", *WORKERS])
#: A while, mostly short, or no lease would live to see its work done; or up to one of the next
#: moments at which something ends, or just before it.
SPANS = st.sampled_from(
    [timedelta(seconds=s) for s in (1, 1, 2, 2, 5, 5, 10, 20, 31, 3601)]
    + [timedelta(days=7, hours=1), timedelta(weeks=2)]
    + [(which, before) for which in (0, 0, 1, 2) for before in (timedelta(0), MICROSECOND)]
)
RECENT = st.sampled_from([0, 0, 0, 0, 1, 2, 3])
WHICH = st.sampled_from([1, 1, 2, 1, 3, 0])
OTHER = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2])
SELDOM = st.sampled_from([False] * 7 + [True])

TABLES = ("approvals", "secret_wraps", "sync_jobs", "access_requests")


@dataclass
class Stage:
    """What every walk on one database shares: who there is, and what has been met so far."""

    world: World
    people: dict[str, Person]
    workers: dict[str, Worker]
    project_id: str
    lines: dict[str, str]
    #: After everything that was set up, so that a walk's trail begins empty.
    starts_at: datetime = NOW + timedelta(days=1)
    met: Counter[tuple[str, str]] = field(default_factory=Counter)

    @classmethod
    def build(cls, world: World) -> Stage:
        tenancy = Tenancy.build(world)
        lines = {"east": tenancy.east, "west": tenancy.west}
        lines["next"] = world.connection(cluster="east")
        project_id = tenancy.ids["project_id:own"]
        _add_production(world, project_id)
        for name, flow in FLOWS.items():
            tenancy.bind(f"{name}/db", lines["east"], "east", ops=["read", "patch"])
            world.rule({"secret_ref_prefix": f"{name}/"}, **_workflow(world, flow))
        return cls(
            world=world,
            people=_people(world, {"project_id": project_id}),
            workers={
                name: Worker(caller=world.agent(lines[line]), line=line)
                for name, line in WORKERS.items()
            },
            project_id=project_id,
            lines=lines,
        )

    def target(self, flow: str, place: str, line: str) -> dict[str, Any]:
        ref = {"target_secret_ref": f"{flow}/db"}
        if place in PROJECT:
            return {**ref, "project_id": self.project_id, "environment": place}
        return {**ref, "provider_connection_id": self.lines[line]}

    def strip(self, person: Person, *, of_account: bool) -> None:
        """Take everything from the person: switch the account off, or end every grant."""
        person.lost = True
        self._hold(person, disabled=of_account, ends=None if of_account else NOW)

    def restore(self, person: Person) -> None:
        """Give the person everything back."""
        if person.lost:
            person.lost = False
            self._hold(person, disabled=False, ends=None)

    def _hold(self, person: Person, *, disabled: bool, ends: datetime | None) -> None:
        who, switch = person.full.user_id, "UPDATE local_users SET disabled = :off WHERE id = :id"
        self.world.write(switch, off=disabled, id=who)
        until = "UPDATE user_roles SET expires_at = :ends WHERE user_id = :id"
        self.world.write(until, ends=ends, id=who)

    def clear(self, ends_at: datetime) -> None:
        """Leave no row of the last walk; its trail stays, so the next one starts after its end."""
        for table in TABLES:
            self.world.write(f"DELETE FROM {table}")
        for person in self.people.values():
            self.restore(person)
        self.starts_at = ends_at + timedelta(days=1)


def _add_production(world: World, project_id: str) -> None:
    world.insert(
        "environments",
        id=new_id(),
        project_id=project_id,
        name="prod",
        type="prod",
        kind="prod",
        risk_level=3,
        created_at=NOW,
        updated_at=NOW,
    )


def _workflow(world: World, flow: Flow) -> dict[str, Any]:
    return {
        "min_approvers": flow.quorum,
        "auto_approve": flow.auto,
        "allow_self_approval": flow.own_vote,
        "approver_role_id": world.role("approver") if flow.needs_role else None,
        "wrap_ttl_created_seconds": int(flow.created.total_seconds()),
        "wrap_ttl_approved_seconds": int(flow.approved.total_seconds()),
        "wrap_ttl_claimed_seconds": int(flow.claimed.total_seconds()),
        "request_ttl_seconds": int(flow.lives.total_seconds()),
    }


def _people(world: World, scope: Mapping[str, str]) -> dict[str, Person]:
    local = world.person("local", "developer", scope)
    world.grant(local.user_id, "approver", scope)

    def approver(name: str) -> Person:
        return Person(full=world.person(name, "approver"), deciding=PLACES, has_role=True)

    return {
        "dev": Person(full=world.person("dev", "developer"), asking=PLACES),
        "mate": Person(full=world.person("mate", "developer"), asking=PLACES),
        "ann": approver("ann"),
        "bob": approver("bob"),
        # May do everything, yet does not hold the role that one workflow asks for.
        "root": Person(full=world.person("root", "admin"), asking=PLACES, deciding=PLACES),
        "local": Person(
            full=world.caller(local.user_id), asking=PROJECT, deciding=PROJECT, has_role=True
        ),
        "stranger": Person(full=world.person("stranger")),
    }
