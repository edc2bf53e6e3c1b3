"""Teams, projects, environments and bindings made by their own operations, and section heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sb.ops import bindings, environments, projects, secrets, teams
from sb.ops.callers import Caller
from tests.ops.world import NOW, World

HEAD = ("team.edit", "project.edit", "environment.edit", "secret.bind", "user_role.edit")


@dataclass
class Estate:
    world: World
    admin: Caller

    @classmethod
    def of(cls, world: World) -> Estate:
        world.role("head", *HEAD)
        return cls(world=world, admin=world.person("admin", "admin"))

    def head(self, team_id: str, *more: str) -> Caller:
        """Return a section head of the team, and of others."""
        person = self.world.person("head", "head", {"team_id": team_id})
        for other in more:
            self.world.grant(person.user_id, "head", {"team_id": other})
        return self.world.caller(person.user_id)

    def again(self, caller: Caller) -> Caller:
        """Return the person with the grants of a new call: trees may have moved."""
        return self.world.caller(caller.user_id)

    def team(self, name: str, parent: str | None = None, caller: Caller | None = None) -> str:
        row = self.world.run(
            teams.create,
            caller=self.again(caller or self.admin),
            name=name,
            parent_team_id=parent,
            description=None,
            status="active",
            now=NOW,
        )
        return str(row["id"])

    def chain(self, length: int, name: str = "t") -> list[str]:
        """Return so many teams, each below the one before it."""
        found = [self.team(f"{name}0")]
        for n in range(1, length):
            found.append(self.team(f"{name}{n}", found[-1]))
        return found

    def move(self, team_id: str, parent: str | None, caller: Caller | None = None) -> Any:
        return self.world.run(
            teams.update,
            caller=caller or self.admin,
            team_id=team_id,
            changes={"parent_team_id": parent},
            now=NOW,
        )

    def project(self, name: str, team: str | None = None, caller: Caller | None = None) -> str:
        row = self.world.run(
            projects.create,
            caller=caller or self.admin,
            name=name,
            team_id=team,
            status="active",
            now=NOW,
        )
        return str(row["id"])

    def environment(
        self, project_id: str, name: str = "dev", caller: Caller | None = None, **changes: Any
    ) -> str:
        values = {
            "environment_type": "dev",
            "kind": None,
            "risk_level": 1,
            "description": None,
            **changes,
        }
        row = self.world.run(
            environments.create,
            caller=caller or self.admin,
            project_id=project_id,
            name=name,
            now=NOW,
            **values,
        )
        return str(row["id"])

    def bind(
        self,
        project_id: str,
        secret: str | secrets.Place,
        caller: Caller | None = None,
        **limits: Any,
    ) -> Any:
        return self.world.run(
            bindings.create,
            caller=caller or self.admin,
            project_id=project_id,
            secret=secret,
            limits=bindings.Limits(**limits),
            now=NOW,
        )

    def rebind(
        self, project_id: str, secret_id: str, caller: Caller | None = None, **changes: Any
    ) -> Any:
        return self.world.run(
            bindings.update,
            caller=caller or self.admin,
            project_id=project_id,
            secret_id=secret_id,
            changes=changes,
            now=NOW,
        )

    def unbind(self, project_id: str, secret_id: str, caller: Caller | None = None) -> None:
        self.world.run(
            bindings.delete,
            caller=caller or self.admin,
            project_id=project_id,
            secret_id=secret_id,
            now=NOW,
        )


def place(ref: str = "app/db", **more: Any) -> secrets.Place:
    return secrets.Place(provider_type="file", secret_ref=ref, **more)
