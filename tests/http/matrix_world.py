"""The estate of the authorisation matrix: two teams with nothing in common, and who calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sb.auth.access import Grant
from sb.auth.permissions import PERMISSION_KEYS
from sb.auth.tokens import new_token, token_hash
from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.ids import new_id
from sb.kms import KeyManagement
from sb.ops import connections, enrollments, grants, sessions, teams, users, workflows
from sb.ops.callers import AgentCaller, Anonymous, Caller
from tests.ops.estate import HEAD as TENANCY
from tests.stack import PASSWORD_HASH, Stack

Side = Literal["inside", "outside"]
SIDES: tuple[Side, Side] = ("inside", "outside")
#: A section head administers a team without anybody of the platform.
HEAD = (*TENANCY, "policy.author", "secret.list", "secret.approve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """Somebody who calls every route: a column of the matrix.

    `role` is a seeded role or, with `permissions`, one made for the matrix; `at_home` is where an
    agent is enrolled.
    """

    name: str
    label: str
    means: str
    role: str | None = None
    permissions: tuple[str, ...] = ()
    scoped: bool = True
    at_home: Side | None = None

    @property
    def is_person(self) -> bool:
        return self.at_home is None and self.name != "anonymous"


PERSONAS = (
    Persona(name="anonymous", label="nobody", means="no credential at all"),
    Persona(name="plain user", label="plain", means="signed in, no grant and no team"),
    Persona(
        name="scoped developer", label="dev", means="role developer at team A", role="developer"
    ),
    Persona(name="scoped approver", label="appr", means="role approver at team A", role="approver"),
    Persona(
        name="section head",
        label="head",
        means=f"a role of {', '.join(HEAD)} at team A",
        role="section_head",
        permissions=HEAD,
    ),
    Persona(
        name="auditor",
        label="audit",
        means="audit.read without a scope",
        role="auditor",
        permissions=("audit.read",),
        scoped=False,
    ),
    Persona(
        name="global admin",
        label="admin",
        means="role admin without a scope",
        role="admin",
        scoped=False,
    ),
    Persona(
        name="agent",
        label="agent",
        means="X-Agent-Secret of an agent of a provider connection of A's",
        at_home="inside",
    ),
    Persona(
        name="another agent",
        label="other",
        means="X-Agent-Secret of an agent of a connection of B's: never another's secret",
        at_home="outside",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """An enrolled agent with what only it knows."""

    caller: AgentCaller
    secret: str
    connection_id: str


#: By where it is at home: inside the agent concerned, outside the other one.
Crew = Mapping[Side, Hand]


@dataclass(kw_only=True)
class World:
    """What stands for the whole matrix; each cell adds what it is about."""

    stack: Stack
    kms: KeyManagement
    #: Makes everything, and may do everything.
    maker: Caller
    #: Somebody else, no persona, who may ask for everything.
    stranger: str
    workflow: str
    teams: dict[Side, str]
    crew: Crew
    people: dict[str, str]
    tokens: dict[str, str] = field(default_factory=dict)

    @classmethod
    def build(cls, tx: Transaction, stack: Stack) -> World:
        maker = dataclasses.replace(anybody(_user(tx, "maker")), grants=(EVERYTHING,))
        stranger = _user(tx, "stranger")
        entitle(tx, stranger)
        return cls(
            stack=stack,
            kms=stack.state.kms,
            maker=maker,
            stranger=stranger,
            workflow=_workflow(tx, maker),
            teams=(found := {side: _team(tx, maker, side) for side in SIDES}),
            crew=crew(tx, maker),
            people={
                persona.name: _person(tx, persona, found["inside"])
                for persona in PERSONAS
                if persona.is_person
            },
        )

    def sign_in(self, tx: Transaction, user_id: str) -> tuple[str, str]:
        """Return the id and the token of a new session of this person."""
        token, row = new_token(), users.find(tx, user_id=user_id)
        account = sessions.find_account(tx, email=row.email)
        assert account is not None
        opened = sessions.open_session(
            tx,
            account=account,
            new_password_hash=None,
            token_hash=token_hash(token),
            rules=self.stack.state.session_rules,
            ip=None,
            user_agent=None,
            by=Anonymous(),
            now=utc_now(),
        )
        return opened.session_id, token

    async def credential(self, persona: Persona, made: Crew | None) -> dict[str, str]:
        """Return the headers this persona calls with: an agent only ever has its own secret."""
        if persona.at_home is not None:
            return {"X-Agent-Secret": (made or self.crew)[persona.at_home].secret}
        if not persona.is_person:
            return {}
        if persona.name not in self.tokens:
            user_id = self.people[persona.name]
            _, self.tokens[persona.name] = await self.stack.db.run(self.sign_in, user_id=user_id)
        return {"Authorization": f"Bearer {self.tokens[persona.name]}"}


EVERYTHING = Grant(role_id=new_id(), role_name="maker", permissions=PERMISSION_KEYS, scope={})


def anybody(user_id: str) -> Caller:
    """Return the person as a caller without any grant."""
    return Caller(
        user_id=user_id,
        session_id=new_id(),
        email=f"{user_id}@example.com",
        display_name=user_id,
        grants=(),
    )


def _user(tx: Transaction, name: str) -> str:
    email = f"{name.replace(' ', '-')}@example.com"
    return users.create(
        tx, email=email, password_hash=PASSWORD_HASH, display_name=name, now=utc_now()
    )


def entitle(tx: Transaction, user_id: str) -> str:
    """Let the person ask for everything and return the id of that grant."""
    developer = tx.one("role_find_by_name", name="developer")
    assert developer is not None
    facts = {"user_id": user_id, "role_id": developer["id"], "scope": {}}
    return grants.give(tx, **facts, granted_by="system:test", now=utc_now())


def _person(tx: Transaction, persona: Persona, team_id: str) -> str:
    user_id = _user(tx, persona.name)
    if persona.role is not None:
        if persona.permissions:
            role(tx, persona.role, persona.permissions)
        row = tx.one("role_find_by_name", name=persona.role)
        assert row is not None
        grants.give(
            tx,
            user_id=user_id,
            role_id=row["id"],
            scope={"team_id": team_id} if persona.scoped else {},
            granted_by="system:test",
            now=utc_now(),
        )
    return user_id


def role(tx: Transaction, name: str, permissions: tuple[str, ...]) -> str:
    """Add a role and return its id."""
    role_id = new_id()
    tx.count(
        "role_insert",
        id=role_id,
        name=name,
        description="",
        permissions=list(permissions),
        is_system=False,
        now=utc_now(),
    )
    return role_id


def _team(tx: Transaction, maker: Caller, side: Side) -> str:
    row = teams.create(
        tx,
        caller=maker,
        name={"inside": "A", "outside": "B"}[side],
        parent_team_id=None,
        description=None,
        status="active",
        now=utc_now(),
    )
    return str(row["id"])


def _workflow(tx: Transaction, maker: Caller) -> str:
    knobs = {"name": "open to authors", "scoped_policy_authorable": True}
    return str(workflows.create(tx, by=maker, knobs=knobs, now=utc_now())["id"])


def crew(tx: Transaction, maker: Caller) -> Crew:
    """Enrol one agent for each of two connections of their own."""
    return {side: _hand(tx, maker) for side in SIDES}


def _hand(tx: Transaction, maker: Caller) -> Hand:
    connection_id, secret = connection(tx, maker), new_token()
    caller = enrollments.redeem(
        tx,
        token_hash=token_hash(enrolment(tx, maker, connection_id)[1]),
        secret_hash=token_hash(secret),
        enrollment=enrollments.Enrollment(agent_name=f"agent-{connection_id}"),
        http_request_id=None,
        now=utc_now(),
    )
    return Hand(caller=caller, secret=secret, connection_id=connection_id)


def connection(tx: Transaction, maker: Caller) -> str:
    """Add a provider connection and return its id."""
    row = connections.create(
        tx,
        by=maker,
        name=f"c-{new_id()}",
        provider_type="file",
        auth_method="none",
        scope={},
        cluster_name=None,
        description=None,
        now=utc_now(),
    )
    return str(row["id"])


def enrolment(tx: Transaction, maker: Caller, connection_id: str) -> tuple[str, str]:
    """Return the id and the text of an open enrolment token."""
    token, name = new_token(), new_id()
    enrollments.issue(
        tx,
        by=maker,
        connection_id=connection_id,
        token_hash=token_hash(token),
        name=name,
        expires_in_seconds=None,
        expected_cluster_name=None,
        expected_provider_type=None,
        now=utc_now(),
    )
    row = tx.one("enrollment_find_by_hash", token_hash=token_hash(token))
    assert row is not None
    return str(row["id"]), token
