"""A project in a team, its environment, its bound secret on one cluster, and their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sb.ids import new_id
from sb.ops.callers import Caller
from tests.ops.world import NOW, World

_STAMPS = {"created_at": NOW, "updated_at": NOW}


@dataclass
class Tenancy:
    world: World
    ids: dict[str, str]
    developer: Caller
    colleague: Caller
    approver: Caller
    east: str
    west: str

    @classmethod
    def build(cls, world: World) -> Tenancy:
        east, west = world.connection(cluster="east"), world.connection(cluster="west")
        ids: dict[str, str] = {}
        for name, parent in (("parent", None), ("own", "parent"), ("sibling", "parent")):
            ids[f"team_id:{name}"] = new_id()
            world.insert(
                "teams",
                id=ids[f"team_id:{name}"],
                name=name,
                parent_team_id=ids[f"team_id:{parent}"] if parent else None,
                status="active",
                **_STAMPS,
            )
        for name, team in (("own", "own"), ("other", "sibling")):
            project, env = new_id(), new_id()
            ids[f"project_id:{name}"], ids[f"environment_id:{name}"] = project, env
            team_id = ids[f"team_id:{team}"]
            world.insert(
                "projects", id=project, name=name, team_id=team_id, status="active", **_STAMPS
            )
            world.insert(
                "environments",
                id=env,
                project_id=project,
                name="dev",
                type="dev",
                kind="non_prod",
                risk_level=1,
                **_STAMPS,
            )
        found = cls(
            world=world,
            ids=ids,
            developer=world.person("dev", "developer"),
            colleague=world.person("colleague", "developer"),
            approver=world.person("approver", "approver"),
            east=east,
            west=west,
        )
        found.ids["secret"] = found.bind("app/db", east, "east", ops=["read", "patch"])
        return found

    def scope(self, key: str, which: str) -> dict[str, str]:
        return {key: self.ids.get(f"{key}:{which}", which)}

    def bind(
        self,
        ref: str,
        connection: str | None,
        cluster: str,
        *,
        ops: list[str],
        keys: list[str] | None = None,
        environment_id: str | None = None,
    ) -> str:
        """Bind a secret of this reference to the project and return the secret's id."""
        secret_id = new_id()
        self.world.insert(
            "secrets",
            id=secret_id,
            cluster_name=cluster,
            provider_type="file",
            secret_ref=ref,
            provider_connection_id=connection,
            labels={},
            status="present",
            first_seen_at=NOW,
            last_seen_at=NOW,
        )
        self.world.insert(
            "project_secrets",
            project_id=self.ids["project_id:own"],
            secret_id=secret_id,
            environment_id=environment_id,
            allowed_keys=keys,
            allowed_ops=ops,
            **_STAMPS,
        )
        return secret_id

    def read(self, caller: Caller, *keys: str, now: datetime = NOW, **changes: Any) -> str:
        return self.world.read(caller, *keys, now=now, **{**self.target, **changes})

    def patch(self, caller: Caller, *keys: str, now: datetime = NOW, **changes: Any) -> str:
        return self.world.patch(caller, *keys, now=now, **{**self.target, **changes})

    @property
    def target(self) -> dict[str, Any]:
        return {"project_id": self.ids["project_id:own"], "environment": "dev"}

    def approve(self, caller: Caller, request_id: str, now: datetime = NOW) -> str:
        return str(self.world.approve(caller, request_id, now).row["status"])
