"""Who could approve in a project at a moment, through psql, held against the product's decision.

Everything that decides it is changed in turn; what the product decided is kept after each change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sb.auth.access import Resource, allowed
from sb.ops import accounts, environments, projects, roles, teams, users
from tests.cli.governed import BEGINNING, MICROSECOND, Governed, shown

pytestmark = pytest.mark.xdist_group("cli-audit")

Change = Callable[[float], object]


class Story:
    """A project and everything that its approvers hang on."""

    def __init__(self, governed: Governed) -> None:
        self.governed = governed
        self.admin = governed.caller()
        self.top, self.right = governed.team("top"), governed.team("right")
        self.left = governed.team("left", self.top)
        self.project_id = governed.project("ledger", self.left)
        self.environment_id = governed.environment(self.project_id)
        self.role_id = governed.role("decider", "secret.list")
        self.grants: dict[str, str] = {}

    def changes(self) -> Iterator[tuple[float, Change]]:
        """Yield what is done and on which day."""
        given = self.governed
        yield BEGINNING, lambda _: None
        yield -100, lambda days: self.let(days, "secret.list", "secret.approve")
        yield -90, self.give
        yield -88, lambda days: self.let(days, "secret.list")
        yield -86, lambda days: self.let(days, "secret.approve")
        yield -80, lambda days: given.revoke(self.grants["everywhere"], days)
        yield -75, lambda days: self.stand(self.left, None, days)
        yield -70, lambda days: self.stand(self.left, self.right, days)
        yield -68, lambda days: given.edit_role(self.role_id, days, name="judge")
        yield -66, lambda days: self.move(self.top, days)
        yield -64, lambda days: self.move(self.right, days)
        yield -62, lambda days: self.become("archived", days)
        yield -60, lambda days: self.become("active", days)
        yield -58, lambda days: given.delete_environment(self.environment_id, days)
        yield -56, lambda days: given.edit_grant(self.grants["in-right"], days, expires_at=None)
        yield -54, lambda days: self.end("over", -40, days)
        yield -50, lambda days: self.move(self.top, days)
        yield -40, lambda _: None
        yield -38, lambda days: self.move(self.left, days)
        yield -35, lambda days: self.switch(accounts.disable, days)
        yield -30, lambda days: self.switch(accounts.enable, days)
        # Here grants run out.
        yield -25, lambda _: None
        yield -20, self.take_back
        yield -15, self.clear_away

    def let(self, days: float, *permissions: str) -> None:
        self.governed.edit_role(self.role_id, days, permissions=permissions)

    def give(self, days: float) -> None:
        scopes: dict[str, dict[str, str]] = {
            "everywhere": {},
            "in-left": {"team_id": self.left},
            "over": {"team_id": self.top},
            "in-right": {"team_id": self.right},
            "in-dev": {"environment_id": self.environment_id},
        }
        for name, scope in scopes.items():
            self.grants[name] = self.governed.grant(name, "decider", days, ends=-25, scope=scope)

    def end(self, name: str, ends: float, days: float) -> None:
        ends_at = self.governed.at(ends)
        self.governed.edit_grant(self.grants[name], days, expires_at=ends_at)

    def stand(self, team_id: str, parent: str | None, days: float) -> None:
        changes = {"parent_team_id": parent}
        self.run(teams.update, days, team_id=team_id, changes=changes)

    def move(self, team_id: str | None, days: float) -> None:
        self.run(projects.set_team, days, project_id=self.project_id, team_id=team_id)

    def become(self, status: str, days: float) -> None:
        self.run(projects.set_status, days, project_id=self.project_id, status=status)

    def switch(self, op: Any, days: float) -> None:
        user_id = self.governed.person("in-left")
        self.governed.run(op, by=self.admin, user_id=user_id, now=self.governed.at(days))

    def take_back(self, days: float) -> None:
        for name in ("in-left", "over", "in-right", "in-dev"):
            self.governed.revoke(self.grants[name], days)

    def clear_away(self, days: float) -> None:
        """Leave nothing of it but the trail."""
        self.move(None, days)
        self.run(roles.delete, days, role_id=self.role_id)
        for team_id in (self.left, self.top, self.right):
            self.run(teams.delete, days, team_id=team_id)

    def run(self, op: Any, days: float, **values: Any) -> None:
        self.governed.run(op, caller=self.admin, now=self.governed.at(days), **values)

    def able(self, days: float) -> set[str]:
        """Return who may approve something in the project, as the product decides it now."""
        rows: dict[str, Any] = {"caller": self.admin, "before": None}
        (project,) = self.governed.run(projects.list_projects, **rows, limit=2)
        whole = Resource(team_id=project["team_id"], project_id=project["id"])
        places = [whole]
        for row in self.governed.run(environments.list_environments, **rows, limit=2):
            places.append(dataclasses.replace(whole, environment_id=row["id"]))
        return {
            name
            for name, user_id in self.governed.people.items()
            if not self.governed.run(users.find, user_id=user_id).disabled
            for grants in (self.governed.caller(name, days).grants,)
            if any(allowed(grants, "secret.approve", place) for place in places)
        }


def test_project_approvers_at_a_moment_are_those_the_product_let_approve(
    governed: Governed,
) -> None:
    story = Story(governed)
    told = {}
    for days, change in story.changes():
        change(days)
        told[days] = story.able(days)
    # Before the first moment there was no such project.
    earlier: set[str] | None = None
    for days, able in told.items():
        for back, then in ((0, able), *(() if earlier is None else ((1, earlier),))):
            at = governed.at(days) - back * MICROSECOND
            found = governed.ask("project_approvers", project="ledger", at=at.isoformat())
            assert {row["email"].partition("@")[0] for row in found} == then, at
            archived = -62 <= days - back / 1000 < -60
            status = "archived" if archived else "active"
            assert {row["project_status"] for row in found} == {status}
        earlier = able
    # It changed more often than not, and nobody was always among them but the first administrator.
    assert len({frozenset(able) for able in told.values()}) >= 8
    assert set.intersection(*told.values()) == {"root"}


def test_project_approvers_at_a_moment_tell_what_was_said_then(governed: Governed) -> None:
    team_id = governed.team("left")
    project_id = governed.project("ledger", team_id)
    role_id = governed.role("decider", "secret.approve")
    grant_id = governed.grant("ann", "decider", -30, reason="first", scope={"team_id": team_id})
    governed.edit_grant(grant_id, -20, reason="second", expires_at=governed.at(5))
    governed.edit_role(role_id, -10, name="judge")

    def told(**asked: str) -> list[tuple[str, ...]]:
        found = governed.ask("project_approvers", **asked)
        (row,) = [row for row in found if row["email"] == "ann@example.com"]
        # It had no end until it was given one.
        assert (row["expires_at"] == "") is (asked.get("at") == then[-30])
        return shown([row], "role", "reached_through", "reason", "grant_id")

    then = {days: governed.at(days).isoformat() for days in (-30, -20, -10)}
    through = "team left"
    assert told(project="ledger", at=then[-30]) == [("decider", through, "first", grant_id)]
    assert told(project=project_id, at=then[-20]) == [("decider", through, "second", grant_id)]
    today = [("judge", through, "second", grant_id)]
    assert told(project="ledger", at=then[-10]) == told(project=project_id.upper()) == today
    assert told(project_id=project_id) == told(project_id="ledger") == today
