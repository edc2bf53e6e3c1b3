"""What chance alone would seldom bring about while it still matters: how some walks begin.

Each twist yields steps one after the other: a later one may be about what an earlier one made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

from tests.ops.governance_model import Model, Role, Scope
from tests.ops.governance_picks import Walker
from tests.ops.governance_steps import Step

Twist = Callable[[Model, Walker], Iterator[Step]]


def _role(model: Model, name: str) -> Role:
    (found,) = (role for role in model.roles if role.name == name)
    return found


def _archived(model: Model, w: Walker) -> Iterator[Step]:
    """A team in the middle is archived, and still covers what is below it."""
    yield w.set_team_status(model.people[0], model.teams[1], "archived")


def _deleted(model: Model, w: Walker) -> Iterator[Step]:
    """An environment that somebody holds a role in is deleted."""
    root, somebody, place = model.people[0], model.people[1], model.environments[0]
    yield w.grant(root, somebody, _role(model, "looker"), {"environment_id": place}, None)
    yield w.delete_environment(root, place)


def _over(model: Model, w: Walker) -> Iterator[Step]:
    """Grants end, and stand in nobody's way any more."""
    root, somebody, bare = model.people[0], model.people[1], _role(model, "bare")
    yield w.create_team(root, model.teams[-1], w.new_name())
    team, ends = model.teams[-1], model.now + timedelta(hours=1)
    yield w.grant(root, somebody, _role(model, "approver"), {"team_id": team}, ends)
    yield w.grant(root, root, bare, {}, ends)
    model.now = ends
    yield w.delete_team(root, team)
    # More than they hold themselves, which would have been theirs while the grant went on.
    yield w.edit_role(root, bare, frozenset({"policy.author"}))
    yield w.grant(root, root, _role(model, "policy_author"), {}, None)


def _stripped(model: Model, w: Walker) -> Iterator[Step]:
    """Who holds the role that a request asks for may approve, though not by that role."""
    root, somebody, approver = model.people[0], model.people[1], _role(model, "approver")
    yield w.grant(root, root, approver, {}, None)
    yield w.grant(root, somebody, _role(model, "developer"), {}, None)
    yield w.submit(somebody, model.secrets[2], model.projects[0], model.environments[1])
    yield w.edit_role(root, approver, approver.permissions - {"secret.approve"})
    yield w.approve(root, model.requests[-1])


def _alone(model: Model, w: Walker) -> Iterator[Step]:
    """The other administrator is disabled: there is nobody beside the last one."""
    root, other = model.people[0], model.people[1]
    yield w.grant(root, other, _role(model, "admin"), {}, None)
    yield w.disable(root, other)
    yield w.extend(root, model.grants[0], model.now + timedelta(hours=1))
    yield w.revoke(root, model.grants[0])


def _split(model: Model, w: Walker) -> Iterator[Step]:
    """The only administrator is one by two roles: neither can be taken away."""
    root, admin, giver = model.people[0], _role(model, "admin"), _role(model, "giver")
    yield w.grant(root, root, giver, {}, None)
    given = model.grants[-1]
    yield w.edit_role(root, admin, admin.permissions - {"user_role.edit"})
    yield w.revoke(root, given)
    yield w.edit_role(root, giver, giver.permissions - {"user_role.edit"})


def _handed_on(model: Model, w: Walker) -> Iterator[Step]:
    """Who gives roles in a team and approves in one project of it passes on no more than that."""
    root, giver, other = model.people[:3]
    approver, team = _role(model, "approver"), model.teams[0]
    yield w.grant(root, giver, _role(model, "giver"), {"team_id": team}, None)
    yield w.grant(root, giver, approver, {"project_id": model.projects[0]}, None)
    yield w.grant(giver, other, approver, {"team_id": model.teams[1]}, None)
    yield w.grant(giver, other, approver, {"project_id": model.projects[0]}, None)


def _near(model: Model, w: Walker) -> Iterator[Step]:
    """Scopes that reach a request, and others that miss it by little."""
    root, person = model.people[:2]
    yield w.submit(root, model.secrets[0], model.projects[0], model.environments[0])
    for grant in model.powers(person):
        yield w.revoke(root, grant)
    for scope in _near_scopes(model):
        yield w.grant(root, person, _role(model, "approver"), scope, None)
        yield w.approve(person, model.requests[-1])
        if model.requests[-1].status == "approved":
            yield w.submit(root, model.secrets[0], model.projects[0], model.environments[0])
        yield w.revoke(root, model.grants[-1])


def _near_scopes(model: Model) -> list[Scope]:
    # The secret is called app/db and is in the east; its project is the first, below three teams.
    there: Scope = {"team_id": model.teams[0], "environment_id": model.environments[0]}
    return [
        {"secret_ref_prefix": "app/"},
        {"secret_ref_prefix": "db"},
        {"cluster": "east"},
        {"cluster": "west"},
        {"provider": "file"},
        {"provider": "vault"},
        there,
        {**there, "cluster": "east"},
        {**there, "cluster": "west"},
        {"environment_id": model.environments[1]},
        {"team_id": model.teams[3]},
        {"team_id": model.teams[3], "cluster": "east"},
        {"team_id": model.teams[0], "cluster": "west"},
        {"team_id": model.teams[0], "secret_ref_prefix": "pay/"},
    ]


def _giving(model: Model, w: Walker) -> Iterator[Step]:
    """Who gives roles at some scope sees the grants that lie in it, and no others."""
    root, giver, other = model.people[:3]
    first: Scope = {"environment_id": model.environments[0]}
    held: list[Scope] = [
        {"secret_ref_prefix": "p"},
        {"secret_ref_prefix": "pay/c"},
        {"cluster": "east"},
        {"project_id": model.projects[0], "cluster": "east"},
        {"project_id": model.projects[1]},
        {"team_id": model.teams[0]},
        {"team_id": model.teams[2], "secret_ref_prefix": "pay/c"},
        first,
        {"environment_id": model.environments[2]},
    ]
    for scope in held:
        yield w.grant(root, other, _role(model, "looker"), scope, None)
    for scope in (
        {"secret_ref_prefix": "pay/"},
        {"project_id": model.projects[0]},
        {"team_id": model.teams[1]},
        {"cluster": "east"},
        first,
    ):
        yield w.grant(root, giver, _role(model, "giver"), scope, None)
        yield w.revoke(root, model.grants[-1])


def _foreign(model: Model, w: Walker) -> Iterator[Step]:
    """A secret that another project has is not bound by who may bind in one project alone."""
    root, binder, lead = model.people[0], model.people[1], _role(model, "lead")
    secret, own = model.secrets[0], model.projects[1]
    yield w.grant(root, binder, lead, {"project_id": own}, None)
    yield w.bind(binder, own, secret, None)
    yield w.grant(root, binder, _role(model, "looker"), {}, None)
    yield w.bind(binder, own, secret, None)
    yield w.grant(root, binder, lead, {"project_id": model.projects[0]}, None)
    yield w.bind(binder, own, secret, None)


def _becomes_production(model: Model, w: Walker) -> Iterator[Step]:
    """What was asked for elsewhere waits when production gets the secret, in two ways."""
    root, project = model.people[0], model.projects[1]
    # Bound to every environment of a project, until the project has one of production.
    yield w.submit(root, model.secrets[1], project, model.environments[2])
    yield w.submit(root, model.secrets[1], None, None)
    yield w.create_environment(root, project, w.new_name(), "prod")
    for request in model.requests[-2:]:
        yield w.approve(root, request)
        yield w.reject(root, request)
    for place in (model.environments[2], model.environments[-1], None):
        yield w.submit(root, model.secrets[1], project, place)
    # Bound to production in another project.
    yield w.submit(root, model.secrets[0], model.projects[0], model.environments[0])
    yield w.bind(root, project, model.secrets[0], model.environments[-1])
    yield w.approve(root, model.requests[-1])
    yield w.submit(root, model.secrets[0], model.projects[0], model.environments[0])
    yield w.submit(root, model.secrets[0], project, model.environments[-1])


def _unable_to_ask(model: Model, w: Walker) -> Iterator[Step]:
    """Whoever asked loses the right, or the account, before the approval; and gets it back."""
    root, asking, developer = model.people[0], model.people[1], _role(model, "developer")
    for project, place in ((model.projects[0], model.environments[0]), (None, None)):
        yield w.grant(root, asking, developer, {}, None)
        given = model.grants[-1]
        yield w.submit(asking, model.secrets[0], project, place)
        yield w.revoke(root, given)
        yield w.approve(root, model.requests[-1])
        # Over another project, over part of what is asked: none of it is the right to ask for this.
        yield w.grant(root, asking, developer, {"project_id": model.projects[1]}, None)
        yield w.approve(root, model.requests[-1])
        yield w.grant(root, asking, developer, {}, None)
        yield w.disable(root, asking)
        yield w.approve(root, model.requests[-1])
        yield w.enable(root, asking)
        yield w.approve(root, model.requests[-1])


def _unable_to_vote(model: Model, w: Walker) -> Iterator[Step]:
    """Voters lose the right, the role or the account before the quorum; and get it back."""
    root, asking, first, second = model.people[:4]
    approver, giver = _role(model, "approver"), _role(model, "giver")
    there: Scope = {"project_id": model.projects[1]}
    yield w.grant(root, asking, _role(model, "developer"), {}, None)
    for person in (first, second):
        yield w.grant(root, person, approver, there, None)
    given = model.grants[-2]
    yield w.submit(asking, model.secrets[3], model.projects[1], model.environments[2])
    yield w.approve(first, model.requests[-1])
    yield w.revoke(root, given)
    yield w.approve(root, model.requests[-1])
    # Two could vote for it again, and nobody has done so since.
    yield w.grant(root, first, giver, there, None)
    yield w.approve(first, model.requests[-1])
    yield w.disable(root, first)
    yield w.approve(second, model.requests[-1])
    yield w.submit(asking, model.secrets[3], model.projects[1], model.environments[2])
    yield w.approve(second, model.requests[-1])
    yield w.disable(root, second)
    yield w.approve(root, model.requests[-1])
    yield w.enable(root, first)
    yield w.approve(first, model.requests[-1])


def _unable_by_role(model: Model, w: Walker) -> Iterator[Step]:
    """A voter loses the role that the request asks for, and may approve by another one."""
    root, first, second = model.people[:3]
    approver, anywhere = _role(model, "approver"), Scope()
    yield w.grant(root, first, approver, anywhere, None)
    given = model.grants[-1]
    yield w.grant(root, second, approver, anywhere, None)
    yield w.submit(root, model.secrets[2], model.projects[0], model.environments[1])
    yield w.approve(first, model.requests[-1])
    yield w.grant(root, first, _role(model, "giver"), anywhere, None)
    yield w.revoke(root, given)
    yield w.approve(second, model.requests[-1])
    yield w.grant(root, first, approver, {"provider": "file"}, None)
    yield w.grant(root, first, approver, {"provider": "vault"}, None)


def _parted(model: Model, w: Walker) -> Iterator[Step]:
    """A grant whose project is moved away from its team covers nothing until it is moved back."""
    root, person, home = model.people[0], model.people[1], model.projects[0].team
    there: Scope = {"team_id": model.teams[0], "environment_id": model.environments[0]}
    yield w.grant(root, person, _role(model, "approver"), there, None)
    parted = model.grants[-1]
    yield w.move_project(root, model.projects[0], model.teams[3])
    yield w.submit(root, model.secrets[0], model.projects[0], model.environments[0])
    yield w.approve(person, model.requests[-1])
    for scope in (there, {**there, "project_id": model.projects[0]}):
        yield w.grant(root, model.people[2], _role(model, "approver"), scope, None)
    yield w.extend(root, parted, model.now + timedelta(days=1))
    yield w.move_project(root, model.projects[0], home)
    yield w.approve(person, model.requests[-1])


def _carried(model: Model, w: Walker) -> Iterator[Step]:
    """Who looks after teams moves nothing to where they hold more over it than before."""
    root, mover, approver = model.people[0], model.people[1], _role(model, "approver")
    project, team, to = model.projects[0], model.teams[1], model.teams[3]
    for place in (model.teams[0], to):
        yield w.grant(root, mover, _role(model, "lead"), {"team_id": place}, None)
    held: list[tuple[Scope, Scope]] = [
        ({"team_id": to}, {"team_id": team}),
        ({"team_id": to}, {"project_id": project}),
        ({"team_id": to, "cluster": "east"}, {"cluster": "east"}),
        ({"team_id": to, "secret_ref_prefix": "app/"}, {"secret_ref_prefix": "app/d"}),
        ({"team_id": to, "environment_id": model.environments[2]}, {"provider": "file"}),
    ]
    for there, here in held:
        yield w.grant(root, mover, approver, there, None)
        gained = model.grants[-1]
        for ends in (timedelta(hours=1), None):
            yield from _moved(model, w)
            yield w.grant(root, mover, approver, here, ends and model.now + ends)
        yield from _moved(model, w)
        for grant in [g for g in model.powers(mover) if g.role is approver]:
            yield w.revoke(root, grant)
        assert gained not in model.grants


def _moved(model: Model, w: Walker) -> Iterator[Step]:
    """Somebody tries to move a project and the team above it, and all is put back."""
    root, mover, to = model.people[0], model.people[1], model.teams[3]
    project, team = model.projects[0], model.teams[1]
    home, above = project.team, team.parent
    yield w.move_project(mover, project, to)
    yield w.move_project(root, project, home)
    yield w.move_team(mover, team, to)
    yield w.move_team(root, team, above)


def _plain(model: Model, w: Walker) -> Iterator[Step]:
    """Nothing else happens."""
    yield w.describe_team(model.people[0], model.teams[0], w.new_name())


TWISTS: list[Twist] = [
    _archived,
    _deleted,
    _over,
    _stripped,
    _alone,
    _split,
    _handed_on,
    _near,
    _giving,
    _foreign,
    _parted,
    _carried,
    _unable_to_ask,
    _becomes_production,
    _unable_to_vote,
    _unable_by_role,
    _plain,
]
