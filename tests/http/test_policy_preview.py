"""Explain, simulate and the queue of decisions over real HTTP."""

from __future__ import annotations

from typing import Any

from tests.http.granting import make_role
from tests.http.hostile import MISSING, refused
from tests.stack import Stack

DRAFT: dict[str, Any] = {
    "operation": "read",
    "target_provider_type": "file",
    "target_secret_ref": "app/db",
}


async def test_explain_tells_who_decides_and_why(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    approver = await plane.person("approver", "approver")
    answer = await admin.post("/policies/explain", DRAFT)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["workflow"]["name"] == "standard"
    assert found["reason"] == "only_match"
    assert [(rule["outcome"], rule["anchor"]) for rule in found["rules"]] == [("won", "platform")]
    assert found["rules"][0]["id"] == found["matched_policy_rule_id"]
    assert approver.id in [person["id"] for person in found["approvers"]]
    assert found["approvers_count"] == len(found["approvers"])
    assert found["direct_reveal_allowed"] is False


async def test_explain_by_a_developer_hides_values_and_people(plane: Stack) -> None:
    developer = await plane.person("developer", "developer")
    found = (await developer.post("/policies/explain", DRAFT)).json()
    assert found["approvers"] is None
    assert found["approvers_count"] is None
    assert [rule["selector"] for rule in found["rules"]] == [None]


async def test_explain_out_of_reach_or_malformed_is_refused(plane: Stack) -> None:
    nobody = await plane.person("nobody")
    path, unknown = "/policies/explain", {**DRAFT, "project_id": MISSING}
    refused(await nobody.post(path, unknown), 404, "project_not_found")
    refused(await nobody.post(path, DRAFT), 400, "invalid_request")
    admin = await plane.person("admin", "admin")
    for bad in (
        {"operation": "write"},
        {"target_secret_ref": ""},
        {"target_secret_ref": "app//db"},
        {"extra": 1},
        {"project_id": 7},
    ):
        body = refused(await admin.post(path, {**DRAFT, **bad}), 400, "invalid_request")
        assert body["fields"][0]["field"] == next(iter(bad))


async def test_simulate_takes_an_unscoped_administrator_of_rules(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    workflow_id = (await admin.get("/workflows")).json()[0]["id"]
    await plane.connection()
    made = await admin.post(
        "/requests/read",
        {key: DRAFT[key] for key in DRAFT if key != "operation"} | {"justification": "x"},
    )
    assert made.status_code == 201, made.text
    body = {"selector": {"operation": "read"}, "workflow_id": workflow_id, "priority": 5}
    answer = await admin.post("/policies/simulate", body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["examined"] == 1
    assert [one["request_id"] for one in found["changed"]] == [made.json()["id"]]
    (one,) = found["changed"]
    assert one["after"]["rule_id"] == found["draft_rule_id"]
    assert (one["status"], one["created_at"]) == ("pending", made.json()["created_at"])
    assert one["request"] == {
        "requester_email": "admin@example.com",
        "type": "read",
        "project_name": None,
        "environment_name": None,
        "target_provider_type": "file",
        "target_secret_ref": "app/db",
    }
    assert len((await admin.get("/policies")).json()) == 1
    missing = await admin.post("/policies/simulate", {"removes": MISSING})
    refused(missing, 404, "policy_not_found")
    for bad in ({"limit": 1001}, {"limit": 0}, {"priority": "high"}, {"name": "x"}):
        answer = await admin.post("/policies/simulate", {**body, **bad})
        assert refused(answer, 400, "invalid_request")["fields"][0]["field"] == next(iter(bad))
    # Rules may be written by who may see no request.
    await make_role(admin, "ruler", "policy.edit")
    ruler = await plane.person("ruler", "ruler")
    answer = await ruler.post("/policies/simulate", body)
    after = {**one["after"], "rule_id": answer.json()["draft_rule_id"]}
    assert answer.json()["changed"] == [{**one, "request": None, "after": after}]
    assert "app/db" not in answer.text
    approver = await plane.person("approver", "approver")
    refused(await approver.post("/policies/simulate", body), 403, "permission_denied")


async def test_list_what_needs_my_decision_pages_through_the_queue(plane: Stack) -> None:
    await plane.connection()
    developer = await plane.person("developer", "developer")
    approver = await plane.person("approver", "approver")
    ask = {key: DRAFT[key] for key in DRAFT if key != "operation"} | {"justification": "x"}
    made = [(await developer.post("/requests/read", ask)).json()["id"] for _ in range(3)]
    first = await approver.get("/requests", params={"needs_my_decision": "true", "limit": 2})
    assert [one["id"] for one in first.json()] == [made[2], made[1]]
    following = first.links["next"]["url"].removeprefix("/api/v1")
    assert [one["id"] for one in (await approver.get(following)).json()] == [made[0]]
    await approver.post(f"/requests/{made[1]}/reject", {"reason": "no"})
    left = await approver.get("/requests", params={"needs_my_decision": "true"})
    assert [one["id"] for one in left.json()] == [made[2], made[0]]
    own = await developer.get("/requests", params={"needs_my_decision": "true"})
    assert own.json() == []
    refused(
        await approver.get("/requests", params={"needs_my_decision": "maybe"}),
        400,
        "invalid_request",
    )
