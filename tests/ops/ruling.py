"""Projects, teams and people for tests of policy rules, with a workflow open to scoped authors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sb.ids import new_id
from sb.ops import policy_rules, scoped_policies, workflows
from sb.ops.callers import Caller
from sb.ops.scoped_policies import Anchor
from tests.ops.tenancy import Tenancy
from tests.ops.world import NOW, TEST, World

NON_PROD = {"environment_kind": "non_prod"}
CAP = 9000


@dataclass
class Ruling:
    world: World
    tenancy: Tenancy
    #: Enabled and open to scoped authors.
    open: str
    #: Enabled and closed to them.
    closed: str

    @classmethod
    def build(cls, world: World) -> Ruling:
        tenancy = Tenancy.build(world)
        found = cls(world=world, tenancy=tenancy, open="", closed="")
        found.open = found.workflow("open", scoped_policy_authorable=True)
        found.closed = found.workflow("closed")
        tenancy.ids["environment_id:prod"] = found.environment("prod", "prod")
        return found

    def workflow(self, name: str, **knobs: Any) -> str:
        row = self.world.run(workflows.create, by=TEST, knobs={"name": name, **knobs}, now=NOW)
        return str(row["id"])

    def environment(self, name: str, kind: str) -> str:
        environment_id = new_id()
        self.world.insert(
            "environments",
            id=environment_id,
            project_id=self.tenancy.ids["project_id:own"],
            name=name,
            type="other",
            kind=kind,
            risk_level=1,
            created_at=NOW,
            updated_at=NOW,
        )
        return environment_id

    @property
    def project(self) -> Anchor:
        return Anchor(kind="project", id=self.tenancy.ids["project_id:own"])

    @property
    def other_project(self) -> Anchor:
        return Anchor(kind="project", id=self.tenancy.ids["project_id:other"])

    def team(self, name: str = "own") -> Anchor:
        return Anchor(kind="team", id=self.tenancy.ids[f"team_id:{name}"])

    def author(self, **scope: str) -> Caller:
        return self.world.person("author", "policy_author", scope)

    def author_of(self, anchor: Anchor) -> Caller:
        return self.author(**{f"{anchor.kind}_id": anchor.id})

    def rule(self, now: datetime = NOW, **facts: Any) -> Mapping[str, Any]:
        """Create a rule as an administrator."""
        values = {"name": "rule", "selector": NON_PROD, "workflow_id": self.closed, **facts}
        found: Mapping[str, Any] = self.world.run(
            policy_rules.create, by=TEST, rule=policy_rules.NewRule(**values), now=now
        )
        return found

    def write(self, caller: Caller, anchor: Anchor, **facts: Any) -> Mapping[str, Any]:
        """Create a rule as a scoped author."""
        found: Mapping[str, Any] = self.world.run(
            scoped_policies.create, caller=caller, anchor=anchor, draft=self.draft(**facts), now=NOW
        )
        return found

    def draft(self, **facts: Any) -> scoped_policies.Draft:
        values = {
            "name": "scoped",
            "selector": NON_PROD,
            "workflow_id": self.open,
            "priority": 500,
            **facts,
        }
        return scoped_policies.Draft(**values)
