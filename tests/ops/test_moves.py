"""Moving a team or a project gives whoever moves it nothing they did not hold over it before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sb.http.organisation_document import OrganisationDocument
from sb.ops import grants, organisation, projects
from sb.ops.callers import Caller
from sb.ops.governance_errors import EscalationError
from tests.ops.estate import Estate
from tests.ops.granting import denied
from tests.ops.world import NOW, TEST, World, at

Where = dict[str, str]
Held = tuple[Where, Any]
#: All that the seeded role of approvers carries.
GAINED = ["audit.read", "secret.approve", "secret.list"]
SOON, LATER = at(hours=1), at(hours=2)


@pytest.fixture
def estate(world: World) -> Estate:
    return Estate.of(world)


@pytest.fixture
def places(estate: Estate) -> Where:
    """A project in a team in a team, and what is elsewhere."""
    here, there = estate.team("here"), estate.team("there")
    inner, beside = estate.team("inner", here), estate.team("beside", here)
    project, other = estate.project("p", inner), estate.project("q", beside)
    return {
        "here": here,
        "inner": inner,
        "beside": beside,
        "there": there,
        "target": estate.team("target", there),
        "project": project,
        "environment": estate.environment(project),
        "other": estate.environment(other),
    }


def mover(estate: Estate, places: Where, *approves: Held) -> Caller:
    """Return a head of both places who approves at these scopes, each until its end."""
    head = estate.head(places["here"], places["there"])
    for scope, ends in approves:
        estate.world.run(
            grants.give,
            user_id=head.user_id,
            role_id=estate.world.role("approver"),
            scope={key: places.get(value, value) for key, value in scope.items()},
            granted_by=TEST.actor,
            expires_at=ends,
            now=NOW,
        )
    return estate.again(head)


def move_project(world: World, caller: Caller, places: Where, to: str | None) -> None:
    args = {"caller": caller, "project_id": places["project"], "team_id": to, "now": NOW}
    world.run(projects.set_team, **args)


def tries(estate: Estate, places: Where, caller: Caller) -> list[Callable[[], Any]]:
    """Return the two ways to bring the project below the other team."""
    return [
        lambda: move_project(estate.world, caller, places, places["target"]),
        lambda: estate.move(places["inner"], places["target"], caller),
    ]


#: What is held over the place to move to; what is held over the place of now.
GAINS: list[tuple[Held, list[Held]]] = [
    (({"team_id": "there"}, None), []),
    (({"team_id": "target"}, None), [({"team_id": "there"}, None), ({"team_id": "beside"}, None)]),
    (({"team_id": "there"}, None), [({"team_id": "inner"}, LATER)]),
    (({"team_id": "there"}, LATER), [({"team_id": "inner"}, SOON)]),
    (({"team_id": "there"}, None), [({"team_id": "inner", "cluster": "east"}, None)]),
    (({"team_id": "there"}, None), [({"environment_id": "environment"}, None)]),
    (({"team_id": "there", "cluster": "east"}, None), [({"cluster": "west"}, None)]),
    (
        ({"team_id": "there", "secret_ref_prefix": "a"}, None),
        [({"secret_ref_prefix": "a/b"}, None)],
    ),
    (({"team_id": "there", "project_id": "project"}, None), []),
    (({"team_id": "there", "environment_id": "environment"}, None), []),
]


@pytest.mark.parametrize(("there", "here"), GAINS)
def test_a_move_to_where_one_holds_more_is_refused(
    world: World, estate: Estate, places: Where, there: Held, here: list[Held]
) -> None:
    caller = mover(estate, places, there, *here)
    abouts = (f"project:{places['project']}", f"team:{places['inner']}")
    actions = ("project.move", "team.update")
    for move, action, about in zip(tries(estate, places, caller), actions, abouts, strict=True):
        with pytest.raises(EscalationError) as refused:
            move()
        assert refused.value.details == {"permissions": GAINED}
        assert denied(refused.value) == (action, about, "permission_escalation")
    assert not world.events(action="project.move")
    assert not world.events(action="team.update")


KEEPS: list[tuple[Held, list[Held]]] = [
    (({"team_id": "there"}, None), [({"team_id": "here"}, None)]),
    (({"team_id": "there"}, SOON), [({"team_id": "inner"}, LATER)]),
    (({"team_id": "there"}, SOON), [({"team_id": "inner"}, SOON)]),
    (({"team_id": "there"}, None), [({}, None)]),
    (({"team_id": "there", "cluster": "east"}, None), [({"cluster": "east"}, None)]),
    (
        ({"team_id": "there", "secret_ref_prefix": "a/b"}, None),
        [({"secret_ref_prefix": "a"}, None)],
    ),
    (
        ({"team_id": "there", "environment_id": "environment"}, None),
        [({"project_id": "project"}, None)],
    ),
    # These do not reach the project there either.
    (({"team_id": "there", "environment_id": "other"}, None), []),
    (({"team_id": "beside"}, None), []),
]


@pytest.mark.parametrize(("there", "here"), KEEPS)
def test_a_move_to_where_one_holds_no_more_is_done(
    world: World, estate: Estate, places: Where, there: Held, here: list[Held]
) -> None:
    caller = mover(estate, places, there, *here)
    for move in tries(estate, places, caller):
        move()
        move_project(world, estate.admin, places, places["inner"])
    assert len(world.events(action="team.update", actor=caller.actor)) == 1


def test_heads_of_both_places_and_administrators_move_everything(
    world: World, estate: Estate, places: Where
) -> None:
    for caller in (mover(estate, places), estate.admin):
        for to in (places["there"], places["inner"]):
            move_project(world, caller, places, to)
        for parent in (places["there"], places["here"]):
            estate.move(places["inner"], parent, caller)
    move_project(world, estate.admin, places, None)
    estate.move(places["inner"], None)


def test_a_project_of_no_team_comes_under_nothing_its_mover_holds_alone(
    world: World, estate: Estate, places: Where
) -> None:
    world.role("mover", "project.edit")
    caller = mover(estate, places, ({"team_id": "there"}, None))
    world.grant(caller.user_id, "mover", {"project_id": places["project"]})
    caller = estate.again(caller)
    move_project(world, estate.admin, places, None)
    with pytest.raises(EscalationError) as refused:
        move_project(world, caller, places, places["there"])
    assert set(GAINED) < set(refused.value.details["permissions"])
    # A new one has nothing in it yet that anybody could gain.
    assert estate.project("new", places["there"], caller)


def applied(*teams: dict[str, Any], **project: Any) -> dict[str, Any]:
    raw = {"version": 1, "teams": list(teams), "projects": [{"name": "p", **project}]}
    return OrganisationDocument.model_validate(raw, strict=True).given


def test_a_document_moves_nothing_to_where_its_administrator_holds_more(
    world: World, estate: Estate, places: Where
) -> None:
    world.role("reader", "secret.list", "secret.reveal.direct")
    world.grant(estate.admin.user_id, "reader", {"team_id": places["there"]})
    admin = estate.again(estate.admin)
    for document in (
        applied(team="there"),
        # A team made on the way is below the other from then on.
        applied({"path": "there/new"}, team="there/new"),
    ):
        call = {"caller": admin, "document": document, "now": NOW}
        error = world.refuse(EscalationError, organisation.apply, **call)
        assert error.details == {"permissions": ["secret.reveal.direct"], "at": "projects.0"}
    world.run(organisation.apply, caller=admin, document=applied(team="here"), now=NOW)
    assert len(world.events(action="project.move")) == 1
