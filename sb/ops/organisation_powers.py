"""Roles, workflows and policy rules of a document, each through its own operation."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sb.ops import policy_rules, roles, workflows
from sb.ops.organisation_names import GoneError, Row, fault
from sb.ops.organisation_work import Item, Key, Work, given

WORKFLOW_SHOWN = (*(key for key in workflows.KNOBS if key != "approver_role_id"), "approver_role")
POLICY_SHOWN = (*(key for key in policy_rules.FIELDS if key != "workflow_id"), "workflow")


def role(work: Work, item: Item, _at: str) -> None:
    keys = ("description", "permissions")
    name, row, asked = item["name"], work.names.find("role", item["name"]), given(item, keys)
    common: dict[str, Any] = {"caller": work.caller, "now": work.now}
    if row is None:
        asked = {"description": "", "permissions": [], **asked}
        found = roles.create(work.tx, name=name, **asked, **common)
    else:
        if "permissions" in asked and set(asked["permissions"]) == set(row["permissions"]):
            del asked["permissions"]  # The same in another order is the same.
        found = roles.update(work.tx, role_id=row["id"], changes=asked, **common)
    work.names.put("role", name, found)
    work.note("role", name, row, found, shown=keys)


def workflow(work: Work, item: Item, at: str) -> None:
    name, row = item["name"], work.names.find("workflow", item["name"])
    if row is not None and item.get("auto_approve") and not row["auto_approve"]:
        # Rules that could match production leave it first. Held now: before any of them.
        work.tx.one("workflow_lock", id=row["id"])
        work.note("workflow", name, row, row)
        work.later.append((at, item))
        return
    settle_workflow(work, item, at)


def settle_workflow(work: Work, item: Item, at: str) -> None:
    """Leave the workflow as the item says, whatever rules point at it now."""
    name, row = item["name"], work.names.find("workflow", item["name"])
    knobs = given(item, workflows.KNOBS)
    if "approver_role" in item:
        role = item["approver_role"]
        knobs["approver_role_id"] = role and work.names.id_of(
            "role", role, field=f"{at}.approver_role"
        )
    if row is None:
        found = workflows.create(work.tx, by=work.caller, knobs=knobs, now=work.now)
    else:
        found = workflows.update(
            work.tx, by=work.caller, workflow_id=row["id"], changes=knobs, now=work.now
        )
    work.names.put("workflow", name, found)
    before = None if row is None else _with_role(work, row)
    work.note("workflow", name, before, _with_role(work, found), shown=WORKFLOW_SHOWN)


def _with_role(work: Work, row: Row) -> Row:
    """Return a workflow as people read it: with its approvers' role by name."""
    id_ = row["approver_role_id"]
    return {**row, "approver_role": id_ and work.names.name_of("role", id_)}


def policy(work: Work, item: Item, at: str) -> None:
    changes: dict[str, Any] = {
        **given(item, policy_rules.FIELDS),
        "selector": work.names.with_ids(item["selector"], field=f"{at}.selector"),
        "workflow_id": work.names.id_of("workflow", item["workflow"], field=f"{at}.workflow"),
    }
    anchor: dict[str, Any] = {
        f"{noun}_id": work.names.id_of(noun, item[noun], field=f"{at}.{noun}")
        for noun in ("project", "team")
        if item.get(noun) is not None
    }
    row = _rule(work, item, anchor, at)
    if row is None:
        # Of two rules of one priority the older wins: new ones are as old as their place says.
        later = work.now + timedelta(microseconds=len(work.steps))
        rule = policy_rules.NewRule(**changes, **anchor)
        found = policy_rules.create(work.tx, by=work.caller, rule=rule, now=later)
    else:
        found = policy_rules.update(
            work.tx, by=work.caller, rule_id=row["id"], changes=changes, now=work.now
        )
    at_what = item.get("project") or item.get("team")
    name = f"{item['name']} ({at_what})" if at_what else item["name"]
    before = None if row is None else _named(work, row)
    work.note("policy", name, before, _named(work, found), shown=POLICY_SHOWN)


def _named(work: Work, rule: Row) -> Row:
    """Return a rule as people read it: with names in place of ids."""
    try:
        selector: Mapping[str, Any] = work.names.with_names(rule["selector"])
    except GoneError:
        selector = rule["selector"]
    workflow = work.names.name_of("workflow", rule["workflow_id"])
    return {**rule, "selector": selector, "workflow": workflow}


def _rule(work: Work, item: Item, anchor: Mapping[str, str], at: str) -> Row | None:
    """Return the rule of this name at this anchor, or the system's match-all."""
    if not work.rules:
        for row in work.names.rules:
            key = _rule_key(row, row["name"], system=row["is_system"])
            work.rules.setdefault(key, []).append(row)
    system = not anchor and not item["selector"]
    found = work.rules.get(_rule_key(anchor, item["name"], system=system), [])
    if len(found) > 1:
        raise fault(f"{at}.name", "more than one rule there has this name: rename one of them")
    return found[0] if found else None


def _rule_key(anchor: Mapping[str, Any], name: str, *, system: bool) -> Key:
    return anchor.get("project_id"), anchor.get("team_id"), None if system else name
