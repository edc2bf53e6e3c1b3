"""What the cells of the authorisation matrix are about: real rows in team A or in team B."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sb.auth.access import Grant
from sb.auth.tokens import new_token, token_hash
from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.ids import new_id
from sb.kms.envelope import SealedWrap, seal_wrap
from sb.ops import (
    approvals,
    bindings,
    environments,
    grants,
    jobs,
    policy_rules,
    projects,
    submissions,
    teams,
    users,
    workflows,
    wraps,
)
from sb.ops.callers import Caller
from sb.ops.secrets import Place
from sb.secret import Secret
from tests.http import matrix_world
from tests.http.matrix_world import SIDES, Crew, Persona, Side, World, anybody
from tests.stack import PASSWORD_HASH

NON_PROD = {"environment_kind": "non_prod"}
KEY = "USER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that is valid for whoever may make it.

    `shows` is what a list holds for whoever may see it; a `crew` made for this call stands in for
    the matrix's own.
    """

    ids: tuple[str, ...] = ()
    body: Any = None
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    shows: str | None = None
    crew: Crew | None = None


def go(*ids: str, **more: Any) -> Call:
    """Return a call with these ids in its path."""
    return Call(ids=ids, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A secret bound to a project."""

    project: str
    secret: str
    ref: str
    crew: Crew


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request with as much of its life as the cell needs."""

    id: str
    job: str = ""
    lease: str = ""
    wrap: str = ""
    crew: Crew


@dataclass(kw_only=True)
class Site:
    """One side of the estate inside one transaction: each thing made here is new."""

    tx: Transaction
    world: World
    side: Side
    who: Persona
    #: Whether what was made is about the caller, and so of no use to another one.
    personal: bool = False

    @property
    def team_of_side(self) -> str:
        return self.world.teams[self.side]

    @property
    def across(self) -> Site:
        """The other side."""
        other = SIDES[1 - SIDES.index(self.side)]
        return dataclasses.replace(self, side=other)

    @property
    def caller(self) -> str:
        """The calling person; the stranger stands in where nobody is signed in."""
        self.personal = True
        return self.world.people.get(self.who.name, self.world.stranger)

    @property
    def owner(self) -> str:
        """The caller inside, somebody else outside."""
        caller = self.caller
        return caller if self.side == "inside" else self.user()

    def user(self) -> str:
        name = new_id()
        return users.create(
            self.tx,
            email=f"{name}@example.com",
            password_hash=PASSWORD_HASH,
            display_name=name,
            now=utc_now(),
        )

    def member(self) -> str:
        """A person of the team with a session and a grant over it."""
        user_id = self.user()
        self.join(self.team_of_side, user_id)
        self.grant(user_id)
        self.session(user_id)
        return user_id

    def join(self, team_id: str, user_id: str) -> None:
        teams.add_member(
            self.tx, caller=self.world.maker, team_id=team_id, user_id=user_id, now=utc_now()
        )

    def session(self, user_id: str) -> str:
        return self.world.sign_in(self.tx, user_id)[0]

    def role(self, *permissions: str) -> str:
        return matrix_world.role(self.tx, f"r-{new_id()}", permissions)

    def grant(self, user_id: str, *permissions: str) -> str:
        return grants.give(
            self.tx,
            user_id=user_id,
            role_id=self.role(*permissions),
            scope={"team_id": self.team_of_side},
            granted_by="system:test",
            now=utc_now(),
        )

    def team(self) -> str:
        """A team below that of the side."""
        row = teams.create(
            self.tx,
            caller=self.world.maker,
            name=f"t-{new_id()}",
            parent_team_id=self.team_of_side,
            description=None,
            status="active",
            now=utc_now(),
        )
        return str(row["id"])

    def project(self) -> str:
        row = projects.create(
            self.tx,
            caller=self.world.maker,
            name=f"p-{new_id()}",
            team_id=self.team_of_side,
            status="active",
            now=utc_now(),
        )
        return str(row["id"])

    def environment(self, project_id: str | None = None) -> str:
        row = environments.create(
            self.tx,
            caller=self.world.maker,
            project_id=project_id or self.project(),
            name="dev",
            environment_type="dev",
            kind=None,
            risk_level=1,
            description=None,
            now=utc_now(),
        )
        return str(row["id"])

    def connection(self) -> str:
        return matrix_world.connection(self.tx, self.world.maker)

    def enrolment(self) -> tuple[str, str]:
        """The id and the text of an open enrolment token."""
        return matrix_world.enrolment(self.tx, self.world.maker, self.connection())

    def crew(self) -> Crew:
        return matrix_world.crew(self.tx, self.world.maker)

    def bound(self, *ops: str) -> Bound:
        """A new secret, bound to a new project and served by an agent of its own."""
        made, ref, project = self.crew(), f"app/{new_id()}", self.project()
        place = Place(
            provider_type="file",
            secret_ref=ref,
            provider_connection_id=made[self.side].connection_id,
        )
        row = bindings.create(
            self.tx,
            caller=self.world.maker,
            project_id=project,
            secret=place,
            limits=bindings.Limits(allowed_ops=ops or ("read", "patch")),
            now=utc_now(),
        )
        return Bound(project=project, secret=str(row["secret_id"]), ref=ref, crew=made)

    def workflow(self) -> str:
        knobs = {"name": f"w-{new_id()}", "scoped_policy_authorable": True}
        return str(workflows.create(self.tx, by=self.world.maker, knobs=knobs, now=utc_now())["id"])

    def rule(self, *, project_id: str | None = None, team_id: str | None = None) -> str:
        """A rule of a project or of a team."""
        rule = policy_rules.NewRule(
            name="rule",
            selector=NON_PROD,
            workflow_id=self.world.workflow,
            priority=10,
            project_id=project_id,
            team_id=team_id,
        )
        return str(
            policy_rules.create(self.tx, by=self.world.maker, rule=rule, now=utc_now())["id"]
        )

    def asked(self, requester: str | None = None, *, kind: str = "read") -> Asked:
        """A pending request of the person, who could ask for it at the time; else of a stranger."""
        found, request_id = self.bound(), new_id()
        draft = submissions.Draft(
            id=request_id,
            type=kind,
            justification="ticket 1",
            target_provider_type="file",
            target_provider_config={},
            target_secret_ref=found.ref,
            target_keys=[KEY],
            project_id=found.project,
        )
        new = [] if kind == "read" else [self._sealed(request_id)]
        submissions.submit(
            self.tx,
            caller=former(requester or self.world.stranger),
            draft=draft,
            new_wraps=new,
            now=utc_now(),
        )
        wrap = new[0].id if new else ""
        return Asked(id=request_id, wrap=wrap, crew=found.crew)

    def approved(self, requester: str | None = None, *, kind: str = "read") -> Asked:
        """An approved request, whose job waits for the agent of the side."""
        found = self.asked(requester, kind=kind)
        with self._entitled(requester):
            seen = approvals.approve(
                self.tx,
                caller=self.world.maker,
                request_id=found.id,
                comment=None,
                now=utc_now(),
            )
        return dataclasses.replace(found, job=str(seen.row["job_id"]))

    def claimed(self, requester: str | None = None, *, kind: str = "read") -> Asked:
        """An approved request, whose job the agent of the side holds under `lease`."""
        found, lease = self.approved(requester, kind=kind), new_token()
        with self._entitled(requester):
            job = jobs.claim(
                self.tx,
                agent=found.crew[self.side].caller,
                lease_token_hash=token_hash(lease),
                now=utc_now(),
            )
        assert job is not None
        assert job.id == found.job
        return dataclasses.replace(found, lease=lease)

    def answered(self, requester: str | None = None) -> Asked:
        """A request to read, whose value waits in `wrap` for its requester."""
        found = self.claimed(requester)
        new = self._sealed(found.id)
        with self._entitled(requester):
            wraps.store_from_agent(
                self.tx,
                agent=found.crew[self.side].caller,
                lease_token_hash=token_hash(found.lease),
                request_id=found.id,
                wrap_id=new.id,
                key_name=new.key_name,
                sealed=new.sealed,
                now=utc_now(),
            )
        return dataclasses.replace(found, wrap=new.id)

    @contextmanager
    def _entitled(self, requester: str | None) -> Iterator[None]:
        """Let the person ask for everything meanwhile; the stranger always may."""
        if requester is None:
            yield
            return
        grant_id = matrix_world.entitle(self.tx, requester)
        yield
        self.tx.count("grant_delete", id=grant_id)

    def _sealed(self, request_id: str) -> submissions.NewWrap:
        wrap_id = new_id()
        sealed: SealedWrap = seal_wrap(
            self.world.kms,
            wrap_id=wrap_id,
            request_id=request_id,
            key_name=KEY,
            value=Secret(b"a value"),
        )
        return submissions.NewWrap(id=wrap_id, key_name=KEY, sealed=sealed)


def former(user_id: str) -> Caller:
    """Return the person as they were while they could ask for anything."""
    grant = Grant(
        role_id=new_id(), role_name="former", permissions=frozenset({"secret.request"}), scope={}
    )
    return dataclasses.replace(anybody(user_id), grants=(grant,))


def target(found: Bound, **more: Any) -> dict[str, Any]:
    """Return the body of a request for the bound secret."""
    body = {
        "target_provider_type": "file",
        "target_secret_ref": found.ref,
        "justification": "ticket 1",
        "project_id": found.project,
    }
    return {**body, **more}


def rule_body(site: Site, **more: Any) -> dict[str, Any]:
    """Return the body of a rule that any author may write."""
    body = {"name": "rule", "selector": NON_PROD, "workflow_id": site.world.workflow}
    return {**body, "priority": 10, **more}


#: How to build a call, by the route's name; ` | ` and a few words set a second row of it apart.
Table = Mapping[str, Callable[[Site], Call]]
