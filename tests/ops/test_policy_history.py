"""The story of a rule: every change with what it was before, the newest page always reachable."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest

from sb.errors import SbError
from sb.ops import policy_history, policy_rules, scoped_policies, workflows
from sb.ops.callers import Caller
from sb.ops.governance_errors import (
    OutOfScopePolicyError,
    OutOfScopeTeamPolicyError,
    PolicyNotFoundError,
)
from sb.ops.policy_history import NO_EVENT, Entry, History
from sb.ops.scoped_policies import Anchor
from tests.ops.ruling import NON_PROD, Ruling
from tests.ops.world import NOW, TEST, World, at

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"


@pytest.fixture
def ruling(world: World) -> Ruling:
    return Ruling.build(world)


@pytest.fixture
def admin(world: World) -> Caller:
    return world.person("admin", "admin")


def change(ruling: Ruling, rule_id: str, minute: int, **changes: Any) -> None:
    ruling.world.run(
        policy_rules.update, by=TEST, rule_id=rule_id, changes=changes, now=at(minutes=minute)
    )


def history(
    ruling: Ruling,
    caller: Caller,
    rule_id: str,
    *,
    before: tuple[datetime, str] | None = None,
    limit: int = 50,
) -> History:
    found: History = ruling.world.run(
        policy_history.for_administrators,
        caller=caller,
        rule_id=rule_id,
        before=before,
        limit=limit,
        now=NOW,
    )
    return found


def told(entry: Entry) -> dict[str, tuple[Any, Any]]:
    return {c["key"]: (c.get("before"), c.get("after")) for c in entry.changes}


def test_history_tells_every_change_with_both_values(ruling: Ruling, admin: Caller) -> None:
    rule = ruling.rule()
    change(ruling, rule["id"], 1, name="renamed", priority=7)
    change(ruling, rule["id"], 2, enabled=False)
    change(ruling, rule["id"], 3, direct_reveal_allowed=True, requires_mfa=True)
    change(ruling, rule["id"], 4, reveal_ttl_seconds=30)
    change(ruling, rule["id"], 5, workflow_id=ruling.open)
    change(ruling, rule["id"], 6, selector={**NON_PROD, "operation": "read"})
    found = history(ruling, admin, rule["id"])
    assert (found.rule_id, found.scope, found.has_more) == (rule["id"], "platform", False)
    assert [told(entry) for entry in found.entries] == [
        {},
        {"name": ("rule", "renamed"), "priority": (100, 7)},
        {"enabled": (True, False)},
        {"direct_reveal_allowed": (False, True), "requires_mfa": (False, True)},
        {"reveal_ttl_seconds": (60, 30)},
        {"workflow_id": (ruling.closed, ruling.open)},
        {
            "selector_keys": (["environment_kind"], ["environment_kind", "operation"]),
            "selector": (NON_PROD, {**NON_PROD, "operation": "read"}),
        },
    ]
    moved = found.entries[5].changes[0]
    names = (moved["before_workflow_name"], moved["after_workflow_name"])
    assert names == ("closed", "open")
    first, last = found.entries[0], found.entries[-1]
    assert (first.action, first.actor, first.actor_display) == (
        "policy.create",
        TEST.actor,
        "System (test)",
    )
    assert (first.scope, first.actor_permission_used) == ("platform", "policy.edit")
    assert last.snapshot_after == {
        "name": "renamed",
        "enabled": False,
        "priority": 7,
        "workflow_id": ruling.open,
        "workflow_name": "open",
        "direct_reveal_allowed": True,
        "requires_mfa": True,
        "reveal_ttl_seconds": 30,
        "selector_keys": ["environment_kind", "operation"],
    }
    assert not any(entry.reconstructed for entry in found.entries)


def test_change_of_a_value_alone_names_its_key(ruling: Ruling, admin: Caller) -> None:
    rule = ruling.rule(selector={"secret_ref_prefix": "a/", "operation": "read"})
    change(ruling, rule["id"], 1, selector={"secret_ref_prefix": "b/", "operation": "read"})
    (changed,) = history(ruling, admin, rule["id"]).entries[1].changes
    assert changed == {
        "key": "selector",
        "changed_keys": ["secret_ref_prefix"],
        "before": {"secret_ref_prefix": "a/", "operation": "read"},
        "after": {"secret_ref_prefix": "b/", "operation": "read"},
    }


def test_authors_see_keys_and_no_values(ruling: Ruling) -> None:
    for anchor in (ruling.project, ruling.team()):
        author = ruling.author_of(anchor)
        rule = ruling.write(author, anchor, selector={**NON_PROD, "secret_ref_prefix": "old/"})
        ruling.world.run(
            scoped_policies.update,
            caller=author,
            anchor=anchor,
            rule_id=rule["id"],
            changes={"selector": {**NON_PROD, "secret_ref_prefix": "new/"}, "name": "x"},
            now=at(minutes=1),
        )
        found = authors_history(ruling, author, anchor, rule["id"])
        assert found.scope == anchor.kind
        assert found.entries[1].changes == [
            {"key": "name", "before": "scoped", "after": "x"},
            {"key": "selector", "changed_keys": ["secret_ref_prefix"]},
        ]
        assert found.entries[1].actor_permission_used == "policy.author"
        assert found.entries[1].actor_display == author.email
        assert "old/" not in repr(found)
        assert "new/" not in repr(found)


def authors_history(ruling: Ruling, caller: Caller, anchor: Anchor, rule_id: str) -> History:
    found: History = ruling.world.run(policy_history.for_authors, **asked(caller, anchor, rule_id))
    return found


def asked(caller: Caller, anchor: Anchor, rule_id: str) -> dict[str, Any]:
    return {
        "caller": caller,
        "anchor": anchor,
        "rule_id": rule_id,
        "before": None,
        "limit": 50,
        "now": NOW,
    }


def test_authors_read_the_story_of_own_rules_only(ruling: Ruling) -> None:
    everyone = ruling.author()
    for anchor, out_of_scope in (
        (ruling.project, OutOfScopePolicyError),
        (ruling.team(), OutOfScopeTeamPolicyError),
    ):
        author = ruling.author_of(anchor)
        own = ruling.write(author, anchor)
        others: list[Mapping[str, Any]] = [
            ruling.rule(),
            ruling.write(everyone, ruling.team("parent")),
            ruling.write(everyone, ruling.other_project),
            {"id": MISSING},
        ]
        for rule in others:
            _refuse(ruling, PolicyNotFoundError, author, anchor, rule["id"])
        stranger = ruling.author_of(ruling.team("sibling"))
        for rule in (own, *others):
            _refuse(ruling, out_of_scope, stranger, anchor, rule["id"])
        gone = {"caller": author, "anchor": anchor, "rule_id": own["id"], "now": NOW}
        ruling.world.run(scoped_policies.delete, **gone)
        _refuse(ruling, PolicyNotFoundError, author, anchor, own["id"])


def _refuse(
    ruling: Ruling, error: type[SbError], caller: Caller, anchor: Anchor, rule_id: str
) -> None:
    ruling.world.refuse(error, policy_history.for_authors, **asked(caller, anchor, rule_id))


def test_deleted_rule_keeps_its_story_for_administrators(ruling: Ruling, admin: Caller) -> None:
    rule = ruling.rule(team_id=ruling.team().id)
    change(ruling, rule["id"], 1, priority=3)
    ruling.world.run(policy_rules.delete, by=TEST, rule_id=rule["id"], now=at(minutes=2))
    found = history(ruling, admin, rule["id"])
    assert found.scope == "team"
    last = found.entries[-1]
    assert (last.action, last.changes) == ("policy.delete", [])
    assert last.snapshot_after == found.entries[-2].snapshot_after
    assert last.snapshot_after["priority"] == 3


def test_history_of_nothing_is_not_found(ruling: Ruling, admin: Caller) -> None:
    ruling.world.refuse(
        PolicyNotFoundError,
        policy_history.for_administrators,
        caller=admin,
        rule_id=MISSING,
        before=None,
        limit=50,
        now=NOW,
    )


def test_workflow_deleted_since_has_no_name_any_more(ruling: Ruling, admin: Caller) -> None:
    rule = ruling.rule(workflow_id=ruling.open)
    change(ruling, rule["id"], 1, workflow_id=ruling.closed)
    ruling.world.run(workflows.delete, by=TEST, workflow_id=ruling.open, now=at(minutes=2))
    (changed,) = history(ruling, admin, rule["id"]).entries[1].changes
    assert (changed["before"], changed["before_workflow_name"]) == (ruling.open, None)
    assert changed["after_workflow_name"] == "closed"


def test_the_newest_page_comes_first_and_leads_to_all_others(ruling: Ruling, admin: Caller) -> None:
    rule = ruling.rule()
    for minute in range(1, 8):
        change(ruling, rule["id"], minute, priority=minute)
    pages: list[History] = []
    before = None
    while True:
        page = history(ruling, admin, rule["id"], before=before, limit=3)
        pages.append(page)
        if not page.has_more:
            break
        before = page.before
    assert [len(page.entries) for page in pages] == [3, 3, 2]
    whole = history(ruling, admin, rule["id"]).entries
    joined = [entry for page in reversed(pages) for entry in page.entries]
    assert joined == whole
    assert told(pages[0].entries[-1]) == {"priority": (6, 7)}
    # The oldest entry of a page is compared with the newest of the next.
    assert told(pages[0].entries[0]) == {"priority": (4, 5)}


def test_rule_without_events_begins_with_one_that_is_marked(
    world: World, ruling: Ruling, admin: Caller
) -> None:
    (row,) = world.rows("SELECT * FROM policy_rules WHERE is_system = :yes", yes=True)
    (entry,) = history(ruling, admin, row["id"]).entries
    assert entry.reconstructed
    assert (entry.event_id, entry.actor, entry.action) == (NO_EVENT, "system", "policy.create")
    assert entry.occurred_at == row["created_at"]
    assert entry.snapshot_after["name"] == row["name"]
    assert entry.snapshot_after["workflow_name"] == "standard"


def test_rule_that_was_there_before_its_first_event_shows_what_it_was(
    world: World, ruling: Ruling, admin: Caller
) -> None:
    (row,) = world.rows("SELECT * FROM policy_rules WHERE is_system = :yes", yes=True)
    change(ruling, row["id"], 1, name="everything", priority=2, workflow_id=ruling.closed)
    first, second = history(ruling, admin, row["id"]).entries
    assert first.reconstructed
    assert (first.snapshot_after["name"], first.snapshot_after["priority"]) == (row["name"], 0)
    assert told(second) == {
        "name": (row["name"], "everything"),
        "priority": (0, 2),
        "workflow_id": (row["workflow_id"], ruling.closed),
    }


def test_looking_is_audited_and_not_part_of_the_story(ruling: Ruling, admin: Caller) -> None:
    rule = ruling.rule()
    history(ruling, admin, rule["id"])
    assert len(history(ruling, admin, rule["id"]).entries) == 1
    looks = ruling.world.events(action="audit.read.policy_history")
    assert [event.actor for event in looks] == [admin.actor] * 2
    assert looks[0].metadata == {
        "policy_rule_id": rule["id"],
        "scope": "platform",
        "entry_count": 1,
    }
