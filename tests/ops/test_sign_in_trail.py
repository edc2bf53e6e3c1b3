"""A refused sign-in as the troubleshooting page finds it: by its kind, in the audit log."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx

from sb.clock import utc_now
from tests.ops import rows
from tests.stack import PASSWORD, Stack, add_user

WRONG = "not-the-password"


async def test_every_kind_of_refusal_answers_alike_and_is_told_apart_in_the_audit_log(
    plane: Stack,
) -> None:
    disabled = await plane.db.run(add_user, email="gone@example.com")
    await plane.db.run(
        rows.run, "UPDATE local_users SET disabled = :on WHERE id = :id", on=True, id=disabled
    )
    late = await plane.db.run(add_user, email="late@example.com")
    await plane.db.run(
        rows.run,
        "UPDATE local_users SET must_change_password = :on, updated_at = :at WHERE id = :id",
        on=True,
        at=utc_now() - timedelta(hours=72),
        id=late,
    )
    await plane.db.run(add_user, email="ada@example.com")
    tries: list[tuple[Any, str]] = [
        ({"email": "nobody@example.com", "password": PASSWORD}, "user_not_found"),
        ({"email": "GONE@example.com", "password": PASSWORD}, "user_disabled"),
        ({"email": "late@example.com", "password": PASSWORD}, "temporary_password_expired"),
        ({"email": "ada@example.com"}, "missing_fields"),
        ({"email": "ada@example.com", "password": ""}, "missing_fields"),
        *[({"email": "Ada@example.com", "password": WRONG}, "wrong_password")] * 5,
        ({"email": "ada@example.com", "password": PASSWORD}, "account_locked"),
    ]
    answers = []
    async with httpx.AsyncClient(base_url=plane.url, timeout=20) as http:
        for body, _ in tries:
            answers.append(await http.post("/api/v1/auth/login", json=body))
    assert {answer.status_code for answer in answers} == {401}
    told = [{k: v for k, v in a.json().items() if k != "request_id"} for a in answers]
    assert all(body == told[0] for body in told)

    admin = await plane.person("admin", "admin")
    events = (await admin.get("/audit-events?action=auth.login")).json()
    denied = [event for event in events if event["status"] == "denied"]
    assert [e["metadata"]["error_kind"] for e in reversed(denied)] == [kind for _, kind in tries]
    assert {event["actor"] for event in denied} == {"anonymous"}
    asked = {answer.json()["request_id"] for answer in answers}
    assert {event["http_request_id"] for event in denied} == asked
    assert "ada@" not in str(denied)
    locked = (await admin.get("/audit-events?action=auth.lockout.applied")).json()
    assert len(locked) == 1
