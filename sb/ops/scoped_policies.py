"""Policy rules written by scoped authors: for a project or a team they cover, never for production.

Every step comes in a fixed order, and the first is whether the caller covers the project or the
team at all: before that nothing about any rule is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sb.auth.access import Resource, allowed
from sb.db.engine import Transaction
from sb.errors import Denial, NotFoundError
from sb.ops import policy_rules, selectors, settings
from sb.ops.callers import Caller
from sb.ops.governance_errors import (
    OutOfScopePolicyError,
    OutOfScopeTeamPolicyError,
    PlatformPolicyNotEditableError,
    PolicyNotFoundError,
    PolicyPriorityReservedError,
    ProdPolicyNotAllowedError,
    TeamNotFoundError,
    WorkflowNotAuthorableError,
)

PERMISSION: Literal["policy.author"] = "policy.author"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The project or the team of the path."""

    kind: Literal["project", "team"]
    id: str

    def owns(self, rule: Mapping[str, Any]) -> bool:
        """Tell whether the rule is anchored exactly here."""
        return bool(rule[f"{self.kind}_id"] == self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A rule as a scoped author may ask for it."""

    name: str
    selector: Mapping[str, Any]
    workflow_id: str
    priority: int
    enabled: bool = True


def create(
    tx: Transaction, *, caller: Caller, anchor: Anchor, draft: Draft, now: datetime
) -> Mapping[str, Any]:
    """Create a rule at the anchor and return it as the author sees it."""
    found = cover(tx, caller=caller, anchor=anchor)
    if anchor.kind == "team" and found["status"] != "active":
        raise TeamNotFoundError
    _check_priority(tx, draft.priority)
    with _denials_audited(anchor):
        selector = _checked_selector(tx, anchor, draft.selector)
    workflow = _authorable(tx, draft.workflow_id, anchor=anchor)
    values = {
        "name": draft.name,
        "selector": selector,
        "workflow_id": draft.workflow_id,
        "priority": draft.priority,
        "enabled": draft.enabled,
        "direct_reveal_allowed": False,
        "requires_mfa": False,
        "reveal_ttl_seconds": 60,
        "project_id": anchor.id if anchor.kind == "project" else None,
        "team_id": anchor.id if anchor.kind == "team" else None,
    }
    policy_rules.check(values, workflow=workflow)
    rule = policy_rules.insert(tx, by=caller, values=values, permission=PERMISSION, now=now)
    return _seen(tx, anchor=anchor, rule_id=rule["id"])


def update(
    tx: Transaction,
    *,
    caller: Caller,
    anchor: Anchor,
    rule_id: str,
    changes: Mapping[str, Any],
    now: datetime,
) -> Mapping[str, Any]:
    """Change a rule of the anchor and return it; what only administrators set is kept."""
    cover(tx, caller=caller, anchor=anchor)
    # What is not theirs is refused before anything is held, as what is not there.
    seen = policy_rules.find(tx, rule_id=rule_id)
    with _denials_audited(anchor):
        _require_own(seen, anchor=anchor)
    rule, workflow = policy_rules.hold(tx, seen=seen, changes=changes)
    values = policy_rules.merged(rule, changes)
    with _denials_audited(anchor):
        _require_own(rule, anchor=anchor)
        _require_still_narrow(rule, values)
        # Checked on every change: lowering the cap makes no rule invalid, but none may stay above.
        _check_priority(tx, values["priority"])
        if anchor.kind == "project" or "selector" in changes:
            values["selector"] = _checked_selector(tx, anchor, values["selector"])
    moved = values["workflow_id"] != rule["workflow_id"]
    if workflow is None or moved or _reaches_further(rule, values):
        # A rule keeps a workflow that is closed to authors where it stands; it cannot be given one,
        # nor carry one to requests that an administrator did not mean.
        workflow = _authorable(tx, values["workflow_id"], anchor=anchor)
    policy_rules.check(values, workflow=workflow)
    policy_rules.replace(tx, by=caller, rule=rule, values=values, permission=PERMISSION, now=now)
    return _seen(tx, anchor=anchor, rule_id=rule_id)


def delete(tx: Transaction, *, caller: Caller, anchor: Anchor, rule_id: str, now: datetime) -> None:
    """Remove a rule of the anchor; a second call is refused as not found."""
    cover(tx, caller=caller, anchor=anchor)
    rule = tx.one("policy_lock", id=rule_id)
    if rule is None:
        raise PolicyNotFoundError
    with _denials_audited(anchor):
        _require_own(rule, anchor=anchor)
    policy_rules.remove(tx, by=caller, rule=rule, permission=PERMISSION, now=now)


def show(tx: Transaction, *, caller: Caller, anchor: Anchor, rule_id: str) -> Mapping[str, Any]:
    """Return a rule that governs the anchor, its own or an inherited one, or refuse it."""
    cover(tx, caller=caller, anchor=anchor)
    return _seen(tx, anchor=anchor, rule_id=rule_id)


def list_rules(
    tx: Transaction,
    *,
    caller: Caller,
    anchor: Anchor,
    after: policy_rules.After | None,
    limit: int,
) -> list[Mapping[str, Any]]:
    """Return up to `limit` rules that govern the anchor, in the order in which they are tried."""
    cover(tx, caller=caller, anchor=anchor)
    return _list(tx, anchor=anchor, rule_id=None, after=after, limit=limit)


def cover(tx: Transaction, *, caller: Caller, anchor: Anchor) -> Mapping[str, Any]:
    """Return the project or team of the path, or refuse a caller who does not cover it."""
    # A stranger gets the same refusal whether it exists or not.
    if anchor.kind == "team":
        row = tx.one("team_find", id=anchor.id)
        if not allowed(caller.grants, PERMISSION, Resource(team_id=anchor.id)):
            raise OutOfScopeTeamPolicyError(audit=denied("policy.denied_out_of_scope", anchor))
        if row is None:
            raise TeamNotFoundError
        return row
    row = tx.one("project_find", id=anchor.id)
    resource = Resource(project_id=anchor.id, team_id=row["team_id"] if row else None)
    if not allowed(caller.grants, PERMISSION, resource):
        raise OutOfScopePolicyError(audit=denied("policy.denied_out_of_scope", anchor))
    if row is None:
        raise NotFoundError
    return row


def _seen(tx: Transaction, *, anchor: Anchor, rule_id: str) -> Mapping[str, Any]:
    rows = _list(tx, anchor=anchor, rule_id=rule_id, after=None, limit=1)
    if not rows:
        raise PolicyNotFoundError
    return rows[0]


def _list(
    tx: Transaction,
    *,
    anchor: Anchor,
    rule_id: str | None,
    after: policy_rules.After | None,
    limit: int,
) -> list[Mapping[str, Any]]:
    page = {
        "after_priority": after.priority if after else None,
        "after_depth": after.depth if after else None,
        "after_at": after.at if after else None,
        "after_id": after.id if after else None,
    }
    if anchor.kind == "team":
        return tx.many("policy_list_for_team", team_id=anchor.id, id=rule_id, **page, limit=limit)
    return tx.many("policy_list_for_project", project_id=anchor.id, id=rule_id, **page, limit=limit)


def _require_own(rule: Mapping[str, Any], *, anchor: Anchor) -> None:
    # Of the platform's rules authors are shown those that are on.
    inherited = policy_rules.scope_of(rule) == "platform" and rule["enabled"]
    if inherited or (anchor.owns(rule) and rule["is_system"]):
        raise PlatformPolicyNotEditableError
    if not anchor.owns(rule):
        # Somebody else's, or inherited from a team above: theirs to change, and not named here.
        raise PolicyNotFoundError


def _require_still_narrow(rule: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Refuse to stretch what an administrator allowed for exactly this selector."""
    if not rule["direct_reveal_allowed"]:
        return
    if _reaches_further(rule, values):
        raise PlatformPolicyNotEditableError(
            "An administrator allowed direct reveal here; only one may widen or enable the rule."
        )


def _reaches_further(rule: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Tell whether the rule might decide requests after the change that it did not before."""
    # Whether one selector covers less than another is not guessed at: any other may cover more.
    return bool(
        values["selector"] != rule["selector"]
        or values["priority"] > rule["priority"]
        or (values["enabled"] and not rule["enabled"])
    )


def _check_priority(tx: Transaction, priority: int) -> None:
    cap = settings.reserved_priority(tx)
    if priority >= cap:
        raise PolicyPriorityReservedError(cap=cap, field="priority")


def _checked_selector(
    tx: Transaction, anchor: Anchor, selector: Mapping[str, Any]
) -> dict[str, str]:
    if anchor.kind == "team":
        return selectors.for_team(selector, scoped=True)
    return selectors.for_scoped_project(tx, selector, project_id=anchor.id)


def _authorable(tx: Transaction, workflow_id: str, *, anchor: Anchor) -> Mapping[str, Any]:
    """Return the workflow, held, or refuse one that is unknown, disabled or closed to authors."""
    row = tx.one("workflow_lock", id=workflow_id)
    if row is None or not row["enabled"] or not row["scoped_policy_authorable"]:
        raise WorkflowNotAuthorableError(
            workflow_id=workflow_id,
            audit=denied(
                "policy.denied_workflow_not_authorable",
                anchor,
                resource=f"workflow:{workflow_id}",
                attempted_workflow_id=workflow_id,
            ),
        )
    return row


@contextmanager
def _denials_audited(anchor: Anchor) -> Iterator[None]:
    """Give refusals of conduct, not of form, their audit row."""
    try:
        yield
    except (PlatformPolicyNotEditableError, ProdPolicyNotAllowedError) as refusal:
        refusal.audit = denied("policy.denied", anchor, error_kind=refusal.code)
        raise


def denied(action: str, anchor: Anchor, *, resource: str | None = None, **facts: str) -> Denial:
    """Return the audit row of a refusal here; it never names a rule, which may be out of scope."""
    return Denial(
        action,
        resource or f"{anchor.kind}:{anchor.id}",
        actor_permission_attempted=PERMISSION,
        scope=anchor.kind,
        **{f"attempted_{anchor.kind}_id": anchor.id},
        **facts,
    )
