"""The main job over real HTTP: ask, approve, do, reveal once, and read the whole story."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

from sb.clock import utc_now
from sb.ops import expiry
from tests.stack import Person, Stack, until

READ = {
    "target_provider_type": "file",
    "target_secret_ref": "app/db",
    "target_keys": ["PASSWORD"],
    "justification": "ticket 1",
}


async def executed(person: Person, request_id: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found = (await person.get(f"/requests/{request_id}")).json()
        assert found["status"] in ("approved", "executed"), found
        return found if found["status"] == "executed" else None

    return await until(look)


async def test_read_request_is_revealed_exactly_once(plane: Stack) -> None:
    await plane.agent(await plane.connection())
    dev = await plane.person("dev", "developer")
    approver = await plane.person("approver", "approver")
    submitted = await dev.post("/requests/read", READ)
    assert submitted.status_code == 201
    request = submitted.json()
    assert request["allowed_actions"] == ["cancel"]
    seen = (await approver.get(f"/requests/{request['id']}")).json()
    assert seen["allowed_actions"] == ["approve", "reject"]

    approved = await approver.post(f"/requests/{request['id']}/approve", {"comment": "fine"})

    assert approved.json()["status"] == "approved"
    done = await executed(dev, request["id"])
    assert done["allowed_actions"] == ["reveal"]
    (wrap,) = (await dev.get(f"/requests/{request['id']}/wraps")).json()
    assert (wrap["key_name"], wrap["consumed"]) == ("PASSWORD", False)
    path = f"/requests/{request['id']}/wraps/{wrap['id']}"
    assert (await approver.get(path)).status_code == 403
    revealed = await dev.get(path)
    assert base64.b64decode(revealed.json()["value"]) == b"p-value"
    assert revealed.headers["cache-control"] == "no-store"
    again = await dev.get(path)
    assert (again.status_code, again.json()["error"]) == (410, "wrap_already_consumed")

    chain = await approver.get("/audit-events", params={"correlation_id": request["id"]})
    story = {(event["action"], event["status"]) for event in chain.json()}
    assert story >= {
        ("request.submit", "success"),
        ("request.approve", "success"),
        ("job.enqueue", "success"),
        ("job.claim", "success"),
        ("wrap.create", "success"),
        ("job.complete", "success"),
        ("request.transition", "success"),
        ("wrap.retrieve", "success"),
        ("wrap.retrieve", "denied"),
    }
    assert "p-value" not in chain.text


async def test_swept_wrap_is_still_gone_and_never_missing(plane: Stack) -> None:
    await plane.agent(await plane.connection())
    dev = await plane.person("dev", "developer")
    approver = await plane.person("approver", "approver")
    body = {**READ, "target_keys": ["PASSWORD", "USER"]}
    request_id = (await dev.post("/requests/read", body)).json()["id"]
    await approver.post(f"/requests/{request_id}/approve", {})
    await executed(dev, request_id)
    wraps = (await dev.get(f"/requests/{request_id}/wraps")).json()
    seen, unseen = (f"/requests/{request_id}/wraps/{wrap['id']}" for wrap in wraps)
    assert (await dev.get(seen)).status_code == 200
    # What was seen leaves no ciphertext behind, long before the sweep takes its row.
    kept = await plane.db.read(lambda tx: tx.one("wrap_find", id=wraps[0]["id"]))
    assert (kept["encrypted_value"], kept["data_key_ciphertext"]) == (b"", b"")
    assert (await dev.get(f"/requests/{request_id}")).json()["allowed_actions"] == ["reveal"]

    later = utc_now() + timedelta(days=8)
    assert await plane.db.run(expiry.purge_wraps, now=later, limit=10) == 2

    for path, code in ((seen, "wrap_already_consumed"), (unseen, "wrap_expired")):
        answer = await dev.get(path)
        assert (answer.status_code, answer.json()["error"]) == (410, code)
    strange = f"/requests/{request_id}/wraps/{request_id}"
    assert (await dev.get(strange)).status_code == 404
    assert (await dev.get(f"/requests/{request_id}")).json()["allowed_actions"] == []


async def test_patch_request_writes_and_keeps_other_keys(plane: Stack) -> None:
    await plane.agent(await plane.connection())
    dev = await plane.person("dev", "developer")
    approver = await plane.person("approver", "approver")
    body = {**READ, "key_values": {"PASSWORD": "new-value", "PORT": "5432"}}
    del body["target_keys"]
    request = (await dev.post("/requests", body)).json()
    assert request["target_keys"] == ["PASSWORD", "PORT"]

    await approver.post(f"/requests/{request['id']}/approve", {})
    await executed(dev, request["id"])

    bundle = plane.file_store().read("app/db", {})
    assert bundle.values == {"USER": "u-value", "PASSWORD": "new-value", "PORT": "5432"}
    wraps = (await dev.get(f"/requests/{request['id']}/wraps")).json()
    assert all(wrap["consumed"] for wrap in wraps)


async def test_read_of_missing_keys_fails_the_request(plane: Stack) -> None:
    await plane.agent(await plane.connection())
    dev = await plane.person("dev", "developer")
    approver = await plane.person("approver", "approver")
    request = (await dev.post("/requests/read", {**READ, "target_keys": ["NOPE"]})).json()
    await approver.post(f"/requests/{request['id']}/approve", {})

    async def look() -> dict[str, Any] | None:
        found = (await dev.get(f"/requests/{request['id']}")).json()
        return found if found["status"] == "failed" else None

    found = await until(look)
    assert "none of the 1 keys" in found["failure_reason"]


async def test_reject_and_cancel_end_a_pending_request_once(plane: Stack) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    approver = await plane.person("approver", "approver")
    first = (await dev.post("/requests/read", READ)).json()["id"]
    second = (await dev.post("/requests/read", READ)).json()["id"]

    rejected = await approver.post(f"/requests/{first}/reject", {"reason": "no ticket"})
    assert (rejected.json()["status"], rejected.json()["reject_reason"]) == (
        "rejected",
        "no ticket",
    )
    assert (await approver.post(f"/requests/{first}/approve", {})).status_code == 409
    assert (await approver.post(f"/requests/{second}/cancel")).status_code == 403
    assert (await dev.post(f"/requests/{second}/cancel")).json()["status"] == "cancelled"
    again = await dev.post(f"/requests/{second}/cancel")
    assert (again.status_code, again.json()["error"]) == (409, "request_not_pending")


async def test_own_request_cannot_be_decided(plane: Stack) -> None:
    await plane.connection()
    admin = await plane.person("admin", "admin")
    request_id = (await admin.post("/requests/read", READ)).json()["id"]
    for verb, body in (("approve", {}), ("reject", {"reason": "x"})):
        answer = await admin.post(f"/requests/{request_id}/{verb}", body)
        assert (answer.status_code, answer.json()["error"]) == (403, "self_approval_forbidden")


async def test_idempotency_key_creates_one_request(plane: Stack) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    headers = {"Idempotency-Key": "once"}
    first = await dev.post("/requests/read", READ, headers=headers)
    second = await dev.post("/requests/read", READ, headers=headers)
    other = await dev.post("/requests/read", {**READ, "justification": "y"}, headers=headers)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotency-replayed"] == "true"
    assert (other.status_code, other.json()["error"]) == (409, "idempotency_key_reused")
    assert len((await dev.get("/requests")).json()) == 1


async def test_lists_are_paged_by_link(plane: Stack) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    made = [(await dev.post("/requests/read", READ)).json()["id"] for _ in range(5)]
    found: list[str] = []
    path: str | None = "/api/v1/requests?limit=2&status=pending"
    while path:
        page = await dev.http.get(path)
        found += [request["id"] for request in page.json()]
        link = page.headers.get("link")
        path = link.partition(">")[0].removeprefix("<") if link else None
    assert found == made[::-1]


async def test_a_stranger_learns_nothing_about_a_request(plane: Stack) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    stranger = await plane.person("stranger")
    request_id = (await dev.post("/requests/read", READ)).json()["id"]
    missing = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
    for path in ("", "/wraps"):
        real = await stranger.get(f"/requests/{request_id}{path}")
        none = await stranger.get(f"/requests/{missing}{path}")
        assert real.status_code == none.status_code == 404
        assert real.json()["message"] == none.json()["message"]
    for verb in ("approve", "cancel"):
        assert (await stranger.post(f"/requests/{request_id}/{verb}")).status_code == 404
    assert (await stranger.get("/requests")).json() == []
    assert (await stranger.post("/requests/read", READ)).status_code == 403
