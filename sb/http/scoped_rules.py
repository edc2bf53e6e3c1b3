"""Rules as scoped authors write and see them: inherited ones without what their selectors say."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sb.db.engine import Transaction
from sb.http.bodies import Body
from sb.http.changes import Changes
from sb.http.routes.policies import Name, Priority, Selector
from sb.http.routes.requests import IdText
from sb.ops import settings
from sb.ops.scoped_policies import Anchor


class CreateRule(Body):
    """A rule as a scoped author asks for it; the rest is an administrator's to set."""

    name: Name
    selector: Selector
    workflow_id: IdText
    priority: Priority
    enabled: bool = True


class UpdateRule(Changes):
    """What to change; what is left out stays."""

    name: Name | None = None
    selector: Selector | None = None
    workflow_id: IdText | None = None
    priority: Priority | None = None
    enabled: bool | None = None


class RuleBody(Body):
    """A rule as the people of one project or team see it."""

    id: str
    name: str
    project_id: str | None
    team_id: str | None
    team_name: str | None
    workflow_id: str
    workflow_name: str
    is_platform_inherited: bool
    selector_keys: list[str]
    #: What an own rule's selector is set to; of an inherited one only the keys are shown.
    selector: dict[str, str] | None
    priority: int
    enabled: bool
    is_system: bool
    created_at: datetime
    updated_at: datetime


class ProjectRuleBody(RuleBody):
    is_team_inherited: bool


class TeamRuleBody(RuleBody):
    is_ancestor_inherited: bool


class TeamRule(Body):
    rule: TeamRuleBody
    priority_cap: int


class TeamRules(Body):
    rules: list[TeamRuleBody]
    priority_cap: int


def project_rule(anchor: Anchor, row: Mapping[str, Any]) -> ProjectRuleBody:
    """Return a rule as the project it governs sees it."""
    inherited = row["project_id"] is None and row["team_id"] is not None
    return ProjectRuleBody(**_facts(anchor, row), is_team_inherited=inherited)


def team_rule(anchor: Anchor, row: Mapping[str, Any]) -> TeamRuleBody:
    """Return a rule as the team that gives it to its projects sees it."""
    inherited = row["team_id"] not in (None, anchor.id)
    return TeamRuleBody(**_facts(anchor, row), is_ancestor_inherited=inherited)


def team_rule_alone(tx: Transaction, anchor: Anchor, row: Mapping[str, Any]) -> TeamRule:
    """Return the rule with the cap its authors stay below."""
    return TeamRule(rule=team_rule(anchor, row), priority_cap=settings.reserved_priority(tx))


def _facts(anchor: Anchor, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is shown of a rule here: values of its selector only when it is anchored here."""
    derived = {"is_platform_inherited", "selector_keys", "selector"}
    return {
        **{name: row[name] for name in RuleBody.model_fields if name not in derived},
        "is_platform_inherited": row["project_id"] is None and row["team_id"] is None,
        "selector_keys": sorted(row["selector"]),
        "selector": row["selector"] if anchor.owns(row) else None,
    }
