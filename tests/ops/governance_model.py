"""Who may do and see what, told once more from D4 and §4.5: no SQL, no product code.

A scope and a thing are both dicts of the same keys. A scope covers a thing that has all the scope
names; a thing that lacks a key is covered only by scopes that do not name it. `powers` is all that
counts for a person: grants in force of somebody who is not disabled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

#: A team, a project and so on by the key they have in scopes; texts for the keys without rows.
Scope = dict[str, Any]
Thing = dict[str, Any]

PLACES = frozenset({"team_id", "project_id", "environment_id"})
ROOT = ("role.edit", "user_role.edit")
SEES_REQUEST = frozenset({"secret.approve", "secret.list", "secret.request"})
#: Asking and looking let a person read a project (§4.5), and so does whatever is done inside one.
READS = SEES_REQUEST | {"secret.bind", "project.edit", "environment.edit", "team.edit"}
READS |= {"user_role.edit", "policy.edit", "policy.author"}


@dataclass(slots=True, kw_only=True, eq=False)
class Person:
    id: str
    name: str
    disabled: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Team:
    id: str
    parent: Team | None
    status: str = "active"
    members: set[Person] = field(default_factory=set)

    def line(self) -> list[Team]:
        """Return the team and all above it."""
        return [self, *(self.parent.line() if self.parent else [])]


@dataclass(slots=True, kw_only=True, eq=False)
class Project:
    id: str
    team: Team | None
    status: str = "active"


@dataclass(slots=True, kw_only=True, eq=False)
class Environment:
    id: str
    name: str
    project: Project
    kind: str
    deleted: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Flow:
    """What the rule for a secret asks of its approvers."""

    quorum: int = 1
    own_vote: bool = False
    role: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class Secret:
    id: str
    ref: str
    provider: str
    cluster: str
    connection: str
    flow: Flow

    def thing(self) -> Thing:
        keys = ("secret_ref_prefix", "provider", "cluster")
        return dict(zip(keys, (self.ref, self.provider, self.cluster), strict=True))


@dataclass(slots=True, kw_only=True, eq=False)
class Binding:
    project: Project
    secret: Secret
    environment: Environment | None

    def thing(self) -> Thing:
        return inside(self.project, self.environment) | self.secret.thing()


@dataclass(slots=True, kw_only=True, eq=False)
class Role:
    id: str
    name: str
    permissions: frozenset[str]


@dataclass(slots=True, kw_only=True, eq=False)
class Grant:
    id: str
    who: Person
    role: Role
    scope: Scope
    ends: datetime | None

    def is_over(self, now: datetime) -> bool:
        return self.ends is not None and self.ends <= now

    def counts(self, now: datetime) -> bool:
        place = self.scope.get("environment_id")
        return not self.is_over(now) and not (place and place.deleted)

    def lasts(self, until: datetime | None) -> bool:
        return self.ends is None or (until is not None and until <= self.ends)


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    id: str
    requester: Person
    secret: Secret
    project: Project | None
    environment: Environment | None
    ends: datetime
    #: By which the rules chose.
    kind: str | None = None
    status: str = "pending"
    votes: dict[Person, str] = field(default_factory=dict)

    def thing(self) -> Thing:
        """D5: a request without a project has no scope, so only unscoped grants reach it."""
        if self.project is None:
            return {}
        return inside(self.project, self.environment) | self.secret.thing()

    def open_at(self, now: datetime) -> bool:
        return self.status == "pending" and now < self.ends


def inside(project: Project, environment: Environment | None = None) -> Thing:
    return {"team_id": project.team, "project_id": project, "environment_id": environment}


def covers(scope: Scope, thing: Thing) -> bool:
    return all(_fits(key, named, thing.get(key)) for key, named in scope.items())


def _fits(key: str, named: Any, found: Any) -> bool:
    if found is None:
        return False
    if key == "team_id":
        return named in found.line()
    if key == "secret_ref_prefix":
        return bool(found.startswith(named))
    return bool(found == named)


def only(scope: Scope, keys: Iterable[str]) -> Scope:
    return {key: named for key, named in scope.items() if key in keys}


def reaches(scope: Scope, project: Project) -> bool:
    """Tell whether the scope names this project, its team or an environment of it, or is empty.

    A scope that names none of the three must not widen to every project (§4.5).
    """
    environment = scope.get("environment_id")
    if environment is not None and environment.project is not project:
        return False
    named = only(scope, ("team_id", "project_id"))
    return covers(named, inside(project)) and (not scope or bool(scope.keys() & PLACES))


def widest(scope: Scope) -> Thing:
    """Return the thing that is covered by whoever covers all of the scope."""
    environment, project = scope.get("environment_id"), scope.get("project_id")
    if project is None and environment is not None and not environment.deleted:
        project = environment.project
    return ({} if project is None else inside(project)) | scope


@dataclass
class Model:
    """The small world, at its own time."""

    now: datetime
    secrets: list[Secret]
    roles: list[Role]
    people: list[Person] = field(default_factory=list)
    teams: list[Team] = field(default_factory=list)
    projects: list[Project] = field(default_factory=list)
    environments: list[Environment] = field(default_factory=list)
    bindings: list[Binding] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    #: Secrets that have served production: nothing here makes one less again.
    production: set[Secret] = field(default_factory=set)

    # What counts for whom.

    def powers(self, who: Person) -> list[Grant]:
        mine = [grant for grant in self.grants if grant.who is who and not who.disabled]
        return [grant for grant in mine if grant.counts(self.now)]

    def carrying(self, who: Person, permissions: Iterable[str]) -> list[Grant]:
        return [g for g in self.powers(who) if g.role.permissions.intersection(permissions)]

    def may(self, who: Person, permission: str, thing: Thing) -> bool:
        return any(covers(grant.scope, thing) for grant in self.carrying(who, (permission,)))

    def lacks(
        self, who: Person, permissions: Iterable[str], thing: Thing, until: datetime | None
    ) -> bool:
        """Tell whether the person does not hold one of them over all of it for all of the time."""
        lasting = [g for g in self.powers(who) if covers(g.scope, thing) and g.lasts(until)]
        return any(all(p not in g.role.permissions for g in lasting) for p in permissions)

    def is_root(self, who: Person) -> bool:
        return all(self.may(who, permission, {}) for permission in ROOT)

    def has_administrator(self) -> bool:
        """Tell whether somebody who can sign in is root by grants that never end."""
        return any(not self.lacks(who, ROOT, {}, None) for who in self.people)

    # What is seen by whom.

    def sees_team(self, who: Person, team: Team) -> bool:
        over = [g for g in self.powers(who) if g.role.permissions]
        return who in team.members or any(
            not g.scope or ("team_id" in g.scope and g.scope["team_id"] in team.line())
            for g in over
        )

    def sees_project(
        self, who: Person, project: Project, permissions: Iterable[str] = READS
    ) -> bool:
        return any(reaches(grant.scope, project) for grant in self.carrying(who, permissions))

    def sees_environment(
        self, who: Person, environment: Environment, permissions: Iterable[str] = READS
    ) -> bool:
        return not environment.deleted and any(
            reaches(grant.scope, environment.project)
            and grant.scope.get("environment_id") in (None, environment)
            for grant in self.carrying(who, permissions)
        )

    def sees_binding(
        self, who: Person, binding: Binding, permissions: Iterable[str] = READS
    ) -> bool:
        return any(_admits(grant.scope, binding) for grant in self.carrying(who, permissions))

    def sees_secret(
        self, who: Person, secret: Secret, permissions: Iterable[str] = ("secret.list",)
    ) -> bool:
        """Through a scope that names no place, or through a binding."""
        return any(
            covers(grant.scope, secret.thing()) for grant in self.carrying(who, permissions)
        ) or any(
            self.sees_binding(who, b, permissions) for b in self.bindings if b.secret is secret
        )

    def sees_request(self, who: Person, request: Request) -> bool:
        return who is request.requester or any(
            self.may(who, permission, request.thing()) for permission in SEES_REQUEST
        )

    def gives(self, who: Person, scope: Scope) -> bool:
        return self.may(who, "user_role.edit", widest(scope))

    def sees_role(self, who: Person, role: Role) -> bool:
        chooses = self.carrying(who, ("role.edit", "user_role.edit", "workflow.edit"))
        held = any(grant.role is role for grant in self.powers(who))
        return bool(chooses) or held or self.may(who, "audit.read", {})

    # What may be decided by whom.

    def decides(self, who: Person, request: Request) -> bool:
        """Tell whether the person could vote, an earlier vote of theirs aside."""
        own = who is request.requester and not request.secret.flow.own_vote
        return (
            not own
            and self.may(who, "secret.approve", request.thing())
            and self.has_role_for(who, request)
        )

    def has_role_for(self, who: Person, request: Request) -> bool:
        role = request.secret.flow.role
        approving = self.carrying(who, ("secret.approve",))
        return not role or any(
            g.role.name == role and covers(g.scope, request.thing()) for g in approving
        )

    def has_production(self, project: Project) -> bool:
        live = [e for e in self.environments if e.project is project and not e.deleted]
        return any(e.kind == "prod" for e in live)

    def is_bound(self, binding: Binding) -> None:
        """Keep the binding; production sticks to what it lets production reach."""
        self.bindings.append(binding)
        env, project = binding.environment, binding.project
        if env.kind == "prod" if env else self.has_production(project):
            self.production.add(binding.secret)

    def is_there(self, environment: Environment) -> None:
        """Keep the environment; production sticks to what is bound to every one of its project."""
        self.environments.append(environment)
        if environment.kind == "prod":
            here = [b for b in self.bindings if b.project is environment.project]
            self.production.update(b.secret for b in here if b.environment is None)

    def kind_of(self, request: Request) -> str | None:
        """Return the kind by which the rules choose."""
        if request.secret in self.production:
            return "prod"
        return request.environment.kind if request.environment else None

    def counting(self, request: Request) -> list[Person]:
        """Return whose votes for a pending request count now."""
        return [who for who in request.votes if self.decides(who, request)]

    def actions(self, who: Person, request: Request) -> list[str]:
        if not request.open_at(self.now):
            return []
        votes = self.decides(who, request) and who not in request.votes
        own = who is request.requester
        return [*(["approve", "reject"] if votes else []), *(["cancel"] if own else [])]


def _admits(scope: Scope, binding: Binding) -> bool:
    """A binding to no environment serves every environment of its project."""
    place = scope.get("environment_id")
    if place is not None and binding.environment is None and place.project is binding.project:
        scope = {key: named for key, named in scope.items() if key != "environment_id"}
    return covers(scope, binding.thing())
