"""Which steps there are to try for a person, with things of the small world picked by chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from tests.ops.governance_model import Model, Person, Scope
from tests.ops.governance_powers import PowerSteps
from tests.ops.governance_requests import RequestSteps
from tests.ops.governance_stage import LIFE, MOVED
from tests.ops.governance_steps import Step
from tests.ops.governance_tenancy import TenancySteps

Thing = TypeVar("Thing")

MAX = {"people": 5, "teams": 6, "projects": 4, "requests": 6, "environments": 6, "grants": 16}
#: Every key alone, and keys together.
SHAPES: tuple[tuple[str, ...], ...] = (
    (),
    (),
    ("team_id",),
    ("team_id",),
    ("team_id",),
    ("project_id",),
    ("project_id",),
    ("environment_id",),
    ("environment_id",),
    ("secret_ref_prefix",),
    ("secret_ref_prefix",),
    ("provider",),
    ("cluster",),
    ("team_id", "cluster"),
    ("team_id", "secret_ref_prefix"),
    ("team_id", "project_id"),
    ("team_id", "environment_id"),
    ("project_id", "environment_id"),
    ("project_id", "provider"),
    ("project_id", "secret_ref_prefix"),
    ("environment_id", "cluster"),
    ("provider", "cluster"),
)
#: The last ones are near misses.
PREFIXES = ("app/", "app/", "pay/", "pay/c", "APP/", "pay_", "db", "db")
ENDS = (None, None, None, timedelta(hours=1), timedelta(days=1), LIFE)


class Pick(Protocol):
    def __call__(self, things: Sequence[Thing], /) -> Thing: ...


class Walker(TenancySteps, PowerSteps, RequestSteps):
    """Builds every step; what it makes has a name of its own."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.named = 0

    def new_name(self) -> str:
        self.named += 1
        return f"n{self.named}"

    def room(self, kind: str) -> bool:
        return len(getattr(self.model, kind)) < MAX[kind]

    def scope(self, pick: Pick) -> Scope:
        model = self.model
        things: dict[str, Sequence[Any]] = {
            "team_id": model.teams,
            "project_id": model.projects,
            "environment_id": model.environments,
            "secret_ref_prefix": PREFIXES,
            "provider": ("file", "vault"),
            "cluster": ("east", "west"),
        }
        shape = pick(SHAPES)
        return {key: pick(things[key]) for key in shape if things[key]}

    def until(self, pick: Pick) -> Any:
        life = pick(ENDS)
        return life and self.model.now + life


Try = Callable[[Walker, Person, Pick], Step | None]
TRIES: dict[str, Try] = {}


def _try(build: Try) -> Try:
    TRIES[build.__name__.strip("_")] = build
    return build


@_try
def _hire(w: Walker, who: Person, pick: Pick) -> Step | None:
    return w.hire(who, w.new_name()) if w.room("people") else None


@_try
def _disable(w: Walker, who: Person, pick: Pick) -> Step | None:
    return w.disable(who, pick(w.model.people))


@_try
def _enable(w: Walker, who: Person, pick: Pick) -> Step | None:
    off = [person for person in w.model.people if person.disabled]
    return w.enable(who, pick(off or w.model.people))


@_try
def _create_team(w: Walker, who: Person, pick: Pick) -> Step | None:
    parent = pick([*w.model.teams, None])
    return w.create_team(who, parent, w.new_name()) if w.room("teams") else None


@_try
def _describe_team(w: Walker, who: Person, pick: Pick) -> Step | None:
    return w.describe_team(who, pick(w.model.teams), w.new_name()) if w.model.teams else None


@_try
def _move_team(w: Walker, who: Person, pick: Pick) -> Step | None:
    if not w.model.teams:
        return None
    return w.move_team(who, pick(w.model.teams), pick([*w.model.teams, None]))


@_try
def _set_team_status(w: Walker, who: Person, pick: Pick) -> Step | None:
    if not w.model.teams:
        return None
    return w.set_team_status(who, pick(w.model.teams), pick(("archived", "active", "active")))


@_try
def _delete_team(w: Walker, who: Person, pick: Pick) -> Step | None:
    return w.delete_team(who, pick(w.model.teams)) if w.model.teams else None


@_try
def _join(w: Walker, who: Person, pick: Pick) -> Step | None:
    return w.join(who, pick(w.model.teams), pick(w.model.people)) if w.model.teams else None


@_try
def _leave(w: Walker, who: Person, pick: Pick) -> Step | None:
    if not w.model.teams:
        return None
    team = pick(w.model.teams)
    inside = [person for person in w.model.people if person in team.members]
    return w.leave(who, team, pick(inside or w.model.people))


@_try
def _create_project(w: Walker, who: Person, pick: Pick) -> Step | None:
    team = pick([*w.model.teams, None])
    return w.create_project(who, team, w.new_name()) if w.room("projects") else None


@_try
def _rename_project(w: Walker, who: Person, pick: Pick) -> Step | None:
    found = w.model.projects
    return w.rename_project(who, pick(found), w.new_name()) if found else None


@_try
def _move_project(w: Walker, who: Person, pick: Pick) -> Step | None:
    if not w.model.projects:
        return None
    return w.move_project(who, pick(w.model.projects), pick([*w.model.teams, None]))


@_try
def _set_project_status(w: Walker, who: Person, pick: Pick) -> Step | None:
    if not w.model.projects:
        return None
    status = pick(("archived", "active", "active"))
    return w.set_project_status(who, pick(w.model.projects), status)


@_try
def _create_environment(w: Walker, who: Person, pick: Pick) -> Step | None:
    if not w.model.projects or not w.room("environments"):
        return None
    kind = pick(("non_prod", "non_prod", "prod"))
    return w.create_environment(who, pick(w.model.projects), w.new_name(), kind)


@_try
def _delete_environment(w: Walker, who: Person, pick: Pick) -> Step | None:
    found = w.model.environments
    return w.delete_environment(who, pick(found)) if found else None


@_try
def _bind(w: Walker, who: Person, pick: Pick) -> Step | None:
    if not w.model.projects:
        return None
    project = pick(w.model.projects)
    return w.bind(who, project, pick(w.model.secrets), pick(_places(w, project)))


@_try
def _unbind(w: Walker, who: Person, pick: Pick) -> Step | None:
    return w.unbind(who, pick(w.model.bindings)) if w.model.bindings else None


@_try
def _grant(w: Walker, who: Person, pick: Pick) -> Step | None:
    if not w.room("grants"):
        return None
    return w.grant(who, pick(w.model.people), pick(w.model.roles), w.scope(pick), w.until(pick))


@_try
def _extend(w: Walker, who: Person, pick: Pick) -> Step | None:
    return w.extend(who, pick(w.model.grants), w.until(pick))


@_try
def _revoke(w: Walker, who: Person, pick: Pick) -> Step | None:
    return w.revoke(who, pick(w.model.grants))


@_try
def _edit_role(w: Walker, who: Person, pick: Pick) -> Step | None:
    role = pick(w.model.roles)
    return w.edit_role(who, role, role.permissions ^ {pick(MOVED)})


@_try
def _submit(w: Walker, who: Person, pick: Pick) -> Step | None:
    if not w.room("requests"):
        return None
    bound = pick([*w.model.bindings, None])
    if bound is not None:
        places = [bound.environment] if bound.environment else _places(w, bound.project)
        return w.submit(who, bound.secret, bound.project, pick(places))
    project = pick([*w.model.projects, None])
    place = pick(_places(w, project)) if project else None
    return w.submit(who, pick(w.model.secrets), project, place)


def _places(w: Walker, project: Any) -> list[Any]:
    """Return no environment, those of the project, and one that is not."""
    mine = [place for place in w.model.environments if place.project is project]
    others = [place for place in w.model.environments if place.project is not project]
    return [None, *mine * 3, *others[:1]]


@_try
def _approve(w: Walker, who: Person, pick: Pick) -> Step | None:
    return w.approve(who, _request(w, pick)) if w.model.requests else None


@_try
def _agree(w: Walker, who: Person, pick: Pick) -> Step | None:
    """Somebody approves who can, if anybody can."""
    if not w.model.requests:
        return None
    request = _request(w, pick)
    able = [person for person in w.model.people if "approve" in w.model.actions(person, request)]
    return w.approve(pick(able) if able else who, request)


@_try
def _reject(w: Walker, who: Person, pick: Pick) -> Step | None:
    return w.reject(who, _request(w, pick)) if w.model.requests else None


@_try
def _cancel(w: Walker, who: Person, pick: Pick) -> Step | None:
    return w.cancel(who, _request(w, pick)) if w.model.requests else None


#: What somebody might do after a step: mostly what is hard to decide.
OFTEN = ("approve", "reject", "submit", "grant", "grant", "extend", "revoke", "edit_role")
OFTEN += ("move_team", "move_project", "disable", "create_environment", "bind")
AFTERWARDS = [*OFTEN, *OFTEN, *TRIES]


def _request(w: Walker, pick: Pick) -> Any:
    """Return a request, mostly one that waits for a decision."""
    waiting = [request for request in w.model.requests if request.open_at(w.model.now)]
    return pick(waiting) if waiting and pick((True, True, False)) else pick(w.model.requests)
