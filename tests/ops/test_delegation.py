"""Passing powers on makes nobody stronger: random people, grants, roles and attempts, no database.

What the product decides is compared with every single thing a small organisation has: whatever a
person can do afterwards, the one who gave it could do at that place and time before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from hypothesis import event, given, settings
from hypothesis import strategies as st

from sb.auth.access import GLOBAL, Grant, Resource, allowed, lacking
from sb.errors import Denial
from sb.ops import administrators, scopes
from sb.ops.callers import Caller
from sb.ops.governance_errors import EscalationError
from sb.ops.grants import require_delegable
from tests.ops.world import at

#: The team above each team, the team of each project, the project of each environment.
TEAMS: dict[str, str | None] = {"t0": None, "t1": "t0", "t2": "t1", "t3": "t0"}
PROJECTS: dict[str, str | None] = {"p1": "t1", "p2": "t2", "p3": "t3", "p0": None}
ENVIRONMENTS = {"e1": "p1", "e2": "p2"}
FREE: dict[str, list[str]] = {
    "secret_ref_prefix": ["a", "a/b", "b"],
    "provider": ["vault", "file"],
    "cluster": ["east", "west"],
}
NAMED: dict[str, Iterable[str]] = {
    "team_id": TEAMS,
    "project_id": PROJECTS,
    "environment_id": ENVIRONMENTS,
}
PERMISSIONS = ["role.edit", "user_role.edit", "secret.approve", "secret.request"]
ENDS = [None, at(days=1), at(days=2), at(days=3)]
#: Moments between the ends, and one after all of them.
MOMENTS = [at(hours=1), at(days=1, hours=1), at(days=2, hours=1), at(days=9)]
PEOPLE = ["ann", "bob", "cy"]
ROLES = ["r0", "r1", "r2"]


def subtree(team: str | None) -> frozenset[str]:
    if team is None:
        return frozenset()
    below = (subtree(child) for child, parent in TEAMS.items() if parent == team)
    return frozenset({team}).union(*below)


def everything_there_is() -> list[Resource]:
    """Return every place of the organisation, with every way to a secret in it."""
    places = [Resource(), *(Resource(team_id=team) for team in TEAMS)]
    places += [Resource(project_id=p, team_id=team) for p, team in PROJECTS.items()]
    places += [
        Resource(environment_id=e, project_id=p, team_id=PROJECTS[p])
        for e, p in ENVIRONMENTS.items()
    ]
    ways = itertools.product([None, "a/b/c", "b"], [None, "vault"], [None, "east"])
    return [
        Resource(
            team_id=place.team_id,
            project_id=place.project_id,
            environment_id=place.environment_id,
            secret_ref=ref,
            provider=provider,
            cluster=cluster,
        )
        for (ref, provider, cluster), place in itertools.product(ways, places)
    ]


RESOURCES = everything_there_is()


def covered(scope: Mapping[str, str]) -> Resource:
    """Return the widest thing of the scope, as the rows of this organisation fill it in."""
    project = scope.get("project_id") or ENVIRONMENTS.get(scope.get("environment_id", ""))
    return scopes.covered(scope, project_id=project, team_id=PROJECTS[project] if project else None)


@st.composite
def some_scope(draw: st.DrawFn) -> dict[str, str]:
    keys = draw(st.lists(st.sampled_from([*NAMED, *FREE]), max_size=3, unique=True))
    choices: dict[str, Iterable[str]] = {**NAMED, **FREE}
    scope = {key: draw(st.sampled_from(sorted(choices[key]))) for key in keys}
    # What the product refuses to store.
    environment, project = scope.get("environment_id"), scope.get("project_id")
    if environment is not None and project not in (None, ENVIRONMENTS[environment]):
        del scope["project_id"]
    return scope


some_permissions = st.frozensets(st.sampled_from(PERMISSIONS), min_size=1)
some_end = st.sampled_from(ENDS)


@dataclass(frozen=True)
class Held:
    person: str
    role: str
    scope: dict[str, str]
    until: datetime | None


@dataclass
class Organisation:
    roles: dict[str, frozenset[str]]
    held: list[Held] = field(default_factory=list)

    def grant(self, held: Held) -> Grant:
        return Grant(
            role_id=held.role,
            role_name=held.role,
            permissions=self.roles[held.role],
            scope=held.scope,
            team_ids=subtree(held.scope.get("team_id")),
            expires_at=held.until,
        )

    def grants(self, person: str, moment: datetime | None = None) -> tuple[Grant, ...]:
        """Return the person's grants that are in force then; now, all of them are."""
        found = (self.grant(held) for held in self.held if held.person == person)
        return tuple(g for g in found if moment is None or in_force(g, moment))

    def caller(self, person: str) -> Caller:
        return Caller(
            user_id=person,
            session_id="",
            email="",
            display_name="",
            grants=self.grants(person),
        )

    def try_to_give(self, giver: str, held: Held) -> bool:
        """Decide as the product does, and do it if it may be done."""
        caller, resource = self.caller(giver), covered(held.scope)
        if not allowed(caller.grants, "user_role.edit", resource):
            return False
        if not delegable(caller, held, self.roles[held.role], resource):
            return False
        self.held.append(held)
        return True

    def try_to_edit(self, editor: str, role: str, permissions: frozenset[str]) -> bool:
        caller, added = self.caller(editor), permissions - self.roles[role]
        if not allowed(caller.grants, "role.edit", GLOBAL):
            return False
        holders = [held for held in self.held if held.role == role]
        if not all(delegable(caller, held, added, covered(held.scope)) for held in holders):
            return False
        self.roles[role] = permissions
        return True

    def powers(self, person: str) -> set[tuple[str, int, datetime]]:
        """Return what the person can do: each permission, at each place, at each moment."""
        return {
            (permission, n, moment)
            for moment in MOMENTS
            for grants in [self.grants(person, moment)]
            for permission in PERMISSIONS
            for n, resource in enumerate(RESOURCES)
            if allowed(grants, permission, resource)
        }


def in_force(grant: Grant, moment: datetime) -> bool:
    return grant.expires_at is None or grant.expires_at > moment


def delegable(caller: Caller, held: Held, permissions: Iterable[str], resource: Resource) -> bool:
    try:
        require_delegable(
            caller,
            to=held.person,
            permissions=permissions,
            resource=resource,
            until=held.until,
            denial=Denial("grant.create", "test"),
        )
    except EscalationError:
        return False
    return True


some_holding = st.builds(
    Held,
    person=st.sampled_from(PEOPLE),
    role=st.sampled_from(ROLES),
    scope=some_scope(),
    until=some_end,
)
#: Two roles that give and edit, so that most attempts go beyond the first question.
some_roles = st.fixed_dictionaries(
    {
        "r0": some_permissions.map(lambda keys: keys | {"user_role.edit"}),
        "r1": some_permissions.map(lambda keys: keys | {"user_role.edit", "role.edit"}),
        "r2": some_permissions,
    }
)
some_holdings = st.lists(some_holding, min_size=1, max_size=6)
some_moves = st.lists(st.booleans(), min_size=1, max_size=5)


def move(organisation: Organisation, data: st.DataObject, *, gives: bool) -> tuple[str, bool]:
    """Let a holder try to give a role near what they hold, or to edit one; tell who and whether."""
    mine = data.draw(st.sampled_from(organisation.held))
    if not gives:
        role, keys = data.draw(st.sampled_from(ROLES)), data.draw(some_permissions)
        return mine.person, organisation.try_to_edit(mine.person, role, keys)
    scope = {**mine.scope, **data.draw(st.one_of(st.just({}), some_scope()))}
    environment = scope.get("environment_id")
    if environment is not None and "project_id" in scope:
        scope["project_id"] = ENVIRONMENTS[environment]
    given_on = Held(
        person=data.draw(st.sampled_from(PEOPLE)),
        role=data.draw(st.sampled_from(ROLES)),
        scope=scope,
        until=data.draw(st.sampled_from([mine.until, *ENDS])),
    )
    return mine.person, organisation.try_to_give(mine.person, given_on)


@settings(deadline=None)
@given(some_roles, some_holdings, some_moves, st.data())
def test_nobody_gains_what_the_giver_did_not_have(
    roles: dict[str, frozenset[str]], held: list[Held], moves: list[bool], data: st.DataObject
) -> None:
    organisation = Organisation(dict(roles), list(held))
    for gives in moves:
        before = {person: organisation.powers(person) for person in PEOPLE}
        roots = {p for p in PEOPLE if administrators.is_root(organisation.caller(p))}
        actor, done = move(organisation, data, gives=gives)
        event(f"{'done' if done else 'refused'} by {'root' if actor in roots else 'somebody'}")
        for person in PEOPLE:
            gained = organisation.powers(person) - before[person]
            assert not gained or done
            assert gained <= before[actor] or (actor in roots and person != actor)
            assert not (gained and person == actor)


@settings(deadline=None)
@given(some_roles, some_holdings, some_moves, st.data())
def test_without_an_administrator_the_union_of_powers_never_grows(
    roles: dict[str, frozenset[str]], held: list[Held], moves: list[bool], data: st.DataObject
) -> None:
    def union() -> set[tuple[str, int, datetime]]:
        return set().union(*(organisation.powers(person) for person in PEOPLE))

    organisation = Organisation({name: keys - {"role.edit"} for name, keys in roles.items()}, held)
    before = union()
    for gives in moves:
        _, done = move(organisation, data, gives=gives)
        event("done" if done else "refused")
    assert union() <= before


@given(some_holding, some_holding, some_permissions, some_permissions)
def test_what_is_not_lacking_is_held_wherever_the_scope_reaches(
    held: Held, given_on: Held, permissions: frozenset[str], wanted: frozenset[str]
) -> None:
    organisation = Organisation({**dict.fromkeys(ROLES, permissions), "new": wanted})
    mine = organisation.grant(held)
    theirs = organisation.grant(Held("bob", "new", given_on.scope, given_on.until))
    missing = lacking([mine], wanted, covered(given_on.scope), until=given_on.until)
    event(f"{len(missing)} missing")
    assert missing <= wanted
    for permission in wanted - missing:
        for moment in MOMENTS:
            if in_force(theirs, moment):
                assert in_force(mine, moment)
        for resource in RESOURCES:
            if allowed([theirs], permission, resource):
                assert allowed([mine], permission, resource), (held, given_on, resource)


@given(some_scope(), some_permissions, some_end)
def test_whoever_holds_everything_lacks_nothing_and_whoever_holds_nothing_all_of_it(
    scope: dict[str, str], wanted: frozenset[str], until: datetime | None
) -> None:
    organisation = Organisation({"all": frozenset(PERMISSIONS)})
    everything = organisation.grant(Held("ann", "all", {}, None))
    same = organisation.grant(Held("ann", "all", scope, until))
    assert not lacking([everything], wanted, covered(scope), until=until)
    assert lacking([], wanted, covered(scope), until=until) == wanted
    # A grant may be given on as it is, but for a scope that contradicts itself.
    assert lacking([same], wanted, covered(scope), until=until) in (frozenset(), wanted)
    if not {"team_id", "project_id"} <= set(scope):
        assert not lacking([same], wanted, covered(scope), until=until)
