"""Refused attempts and grants that nobody uses, through psql."""

from __future__ import annotations

import re

import pytest

from sb.auth.permissions import PERMISSION_KEYS
from sb.errors import Denial
from sb.ids import new_id
from sb.ops import approvals, audit, sessions, submissions
from sb.ops.callers import Anonymous
from tests.cli.audit_files import FOLDER
from tests.cli.governed import Governed, shown
from tests.guards import source

pytestmark = pytest.mark.xdist_group("cli-audit")

# --- refusals


def _deny(
    governed: Governed, by: str, days: float, action: str, on: str | None = None, **facts: str
) -> None:
    caller = governed.caller(by)
    denial = Denial(action, on or f"request:{new_id()}", **facts)
    governed.run(audit.record_denial, denial=denial, by=caller, now=governed.at(days))


def _sign_in(governed: Governed, name: str, days: float, ip: str) -> None:
    account = governed.run(sessions.find_account, email=f"{name}@example.com")
    governed.run(
        sessions.open_session,
        account=account,
        new_password_hash=None,
        token_hash=new_id().encode(),
        rules=sessions.SessionRules(),
        ip=ip,
        user_agent=None,
        by=Anonymous(),
        now=governed.at(days),
    )


def test_denied_attempts_are_counted_by_who_tried_what(governed: Governed) -> None:
    for name in ("ann", "ben"):
        governed.person(name)
    for days, ip in ((-12, "10.0.0.9"), (-10.1, "10.0.0.2"), (-5.1, "10.0.0.1"), (-1, "10.0.0.8")):
        _sign_in(governed, "ann", days, ip)
    for days in (-10, -7, -5):
        _deny(governed, "ann", days, "request.approve", error_kind="out_of_scope_project")
    _deny(governed, "ann", -6, "access.denied", permission="role.edit")
    _deny(governed, "ben", -6, "request.approve", error_kind="out_of_scope_project")
    account = governed.run(sessions.find_account, email="ben@example.com")
    for about in (account, None):
        governed.run(
            sessions.record_failed_login,
            account=about,
            error_kind="wrong_password" if about else "user_not_found",
            email_length=3,
            rules=sessions.SessionRules(),
            by=Anonymous(http_request_id="req-2"),
            now=governed.at(-4),
        )
    columns = ("who", "action", "error_kind", "permission", "aimed_at", "attempts", "addresses")
    found = governed.ask("denied_attempts", since=governed.at(-10).isoformat())
    asked, kind, addresses = "request.approve", "out_of_scope_project", "10.0.0.1 10.0.0.2"
    assert shown(found, *columns) == [
        ("ann@example.com", asked, kind, "", "", "3", addresses),
        ("ann@example.com", "access.denied", "", "role.edit", "", "1", addresses),
        ("", "auth.login", "user_not_found", "", "", "1", ""),
        ("", "auth.login", "wrong_password", "", "ben@example.com", "1", ""),
        ("ben@example.com", asked, kind, "", "", "1", ""),
    ]
    assert found[0]["first_at"] < found[1]["first_at"] < found[0]["last_at"]
    assert shown(found, "last_http_request_id")[1:3] == [("req-1",), ("req-2",)]
    later = governed.ask("denied_attempts", since=governed.at(-6.5).isoformat())
    assert shown(
        [row for row in later if row["who"] == "ann@example.com"], "action", "attempts"
    ) == [
        ("access.denied", "1"),
        (asked, "1"),
    ]
    assert governed.ask("denied_attempts", since=governed.at(-3).isoformat()) == []


def test_denied_attempts_name_what_was_tried_most_often_first(governed: Governed) -> None:
    governed.person("ann")
    tried = {
        f"request:{name}": times
        for name, times in zip("abcdefg", (1, 3, 2, 2, 1, 1, 1), strict=True)
    }
    # Of those tried as often as others, the later ones come first.
    for place, (resource, times) in enumerate(tried.items()):
        for _ in range(times):
            _deny(governed, "ann", -9 + place / 10, "request.approve", resource, error_kind="a")
    _deny(governed, "ann", -5, "request.approve", "request:a", error_kind="b")
    found = governed.ask("denied_attempts", since=governed.at(-10).isoformat())
    assert shown(found, "error_kind", "attempts", "resources", "resource") == [
        ("a", "11", "7", "request:b request:d request:c request:g request:f"),
        ("b", "1", "1", "request:a"),
    ]


# --- unused grants


def _idle(governed: Governed, days: int) -> dict[tuple[str, str], str]:
    found = governed.ask("unused_grants", days=str(days))
    return {(row["email"].split("@")[0], row["role"]): row["finding"] for row in found}


def _request(governed: Governed, name: str, days: float) -> str:
    draft = submissions.Draft(
        id=new_id(),
        type="read",
        justification="ticket 1",
        target_provider_type="file",
        target_provider_config={},
        target_secret_ref="app/db",
        target_keys=["A"],
    )
    caller, now = governed.caller(name, days), governed.at(days)
    governed.run(submissions.submit, caller=caller, draft=draft, new_wraps=[], now=now)
    return draft.id


def test_unused_grants_are_those_nothing_was_done_with(governed: Governed) -> None:
    governed.role("reader", "audit.read", "agent.list")
    governed.role("nothing")
    for name, role in (
        ("dev", "developer"),
        ("dev", "approver"),
        ("judge", "approver"),
        ("slow", "developer"),
        ("idle", "developer"),
        ("eyes", "reader"),
        ("void", "nothing"),
    ):
        governed.grant(name, role, -60)
    governed.grant("fresh", "developer", -20)
    governed.grant("over", "developer", -60, ends=-1)
    request_id = _request(governed, "dev", -5)
    _request(governed, "slow", -40)
    _deny(governed, "idle", -5, "request.submit", error_kind="out_of_scope_project")
    governed.run(
        approvals.approve,
        caller=governed.caller("judge", -5),
        request_id=request_id,
        comment=None,
        now=governed.at(-5),
    )
    # The administrator gave a grant twenty days ago.
    assert _idle(governed, 30) == {
        ("dev", "approver"): "unused",
        ("slow", "developer"): "unused",
        ("idle", "developer"): "unused",
        ("eyes", "reader"): "leaves no trace",
        ("void", "nothing"): "gives nothing",
    }
    assert ("slow", "developer") not in _idle(governed, 50)
    assert ("root", "admin") in _idle(governed, 15)
    assert ("fresh", "developer") in _idle(governed, 10)
    found = governed.ask("unused_grants", days="30")
    (row,) = [row for row in found if row["email"] == "idle@example.com"]
    assert (row["traced"], row["scope"]) == ("secret.request", "everything")
    assert row["untraced"] == "audit.read secret.list secret.reveal.direct"
    assert row["last_act_at"] != ""


def test_unused_grants_know_by_which_permission_and_on_whom(governed: Governed) -> None:
    governed.role("author", "policy.author")
    governed.role("ruler", "policy.edit")
    governed.role("giver", "user_role.edit")
    for name, role in (("ann", "author"), ("ann", "ruler"), ("ben", "giver"), ("cat", "giver")):
        governed.grant(name, role, -60)
    workflow = governed.run(lambda tx: tx.one("workflow_find_default"))
    selector = {"environment_kind": "non_prod"}
    rule_id = governed.rule("mine", -50, selector=selector, workflow_id=workflow["id"])
    governed.edit_rule(rule_id, -5, by="ann", priority=7)
    for name in ("ben", "cat"):
        # One ends somebody else's sessions, the other their own.
        _sign_in(governed, "cat", -5.1, "10.0.0.1")
        cat = governed.person("cat")
        governed.run(sessions.end_all, by=governed.caller(name), user_id=cat, now=governed.at(-5))
    assert _idle(governed, 30) == {
        ("root", "admin"): "unused",
        ("ann", "author"): "unused",
        ("cat", "giver"): "unused",
    }


def test_unused_grants_know_every_permission_and_no_action_that_is_none() -> None:
    text = (FOLDER / "unused_grants.sql").read_text()
    needs = re.findall(r"\('([\w.]+)', '([\w.]+)'\)", text)
    listed = source.rows(source.section(source.document("security.md"), "Audit"))
    assert {action for _, action in needs} <= set(listed)
    # A permission that comes to be asked for, or recorded, is to be entered there.
    assert PERMISSION_KEYS - {permission for permission, _ in needs} == {
        "agent.list",
        "audit.read",
        "integration.bind",
        "job.create",
        "secret.list",
        "secret.reveal.direct",
        "secret.security.approve",
        "secret.value.provide",
    }
