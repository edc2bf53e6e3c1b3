"""Paths are as long as an index entry takes, in bytes: longer ones are refused, never a failure."""

from __future__ import annotations

import random
from typing import Any

import httpx

from sb.ops.targets import MAX_REF_BYTES
from tests.stack import Stack

#: Characters of four bytes each, of which an index entry compresses nothing.
WIDE = "".join(chr(number) for number in random.Random(1).sample(range(0x20000, 0x2A6DF), 2000))
LONGEST = WIDE[: MAX_REF_BYTES // 4]
#: No more characters than bytes are allowed.
LONGER = WIDE[:MAX_REF_BYTES]
NARROW_LONGER = "x" * (MAX_REF_BYTES + 1)


def refused(answer: httpx.Response, field: str) -> None:
    body = answer.json()
    assert (answer.status_code, body["error"]) in {(400, "invalid_request"), (400, "invalid_scope")}
    assert field in answer.text
    assert LONGER[:8] not in answer.text


async def test_a_path_is_refused_by_its_bytes_wherever_it_enters(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    other = await plane.person("other")
    roles = {role["name"]: role["id"] for role in (await admin.get("/roles")).json()}
    flows = (await admin.get("/workflows")).json()
    await plane.connection()
    project = (await admin.post("/projects", {"name": "p"})).json()["id"]
    place: dict[str, Any] = {"provider_type": "file", "cluster_name": "c" * 255}
    asked = {"target_provider_type": "file", "justification": "why", "target_keys": ["A"]}
    given = {"user_id": other.id, "role_id": roles["approver"], "reason": "why"}
    rule = {"name": "r", "workflow_id": flows[0]["id"], "priority": 10}
    for ref in (LONGER, NARROW_LONGER):
        path = f"/projects/{project}/secrets"
        refused(await admin.post(path, {**place, "secret_ref": ref}), "secret_ref")
        body = {**asked, "target_secret_ref": ref}
        refused(await admin.post("/requests/read", body), "target_secret_ref")
        explained = {"operation": "read", "target_provider_type": "file", "target_secret_ref": ref}
        refused(await admin.post("/policies/explain", explained), "target_secret_ref")
        body = {**given, "scope": {"secret_ref_prefix": ref}}
        refused(await admin.post("/user-roles", body), "secret_ref_prefix")
        body = {**rule, "selector": {"secret_ref_prefix": ref}}
        refused(await admin.post("/policies", body), "secret_ref_prefix")
        refused(await admin.get("/secrets", params={"ref_prefix": ref}), "ref_prefix")


async def test_the_longest_path_is_bound_and_asked_for(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    await plane.connection()
    project = (await admin.post("/projects", {"name": "p"})).json()["id"]
    bound = {"provider_type": "file", "secret_ref": LONGEST}
    answer = await admin.post(f"/projects/{project}/secrets", bound)
    assert answer.status_code == 201, answer.text
    found = await admin.get("/secrets", params={"ref_prefix": LONGEST})
    assert [row["secret_ref"] for row in found.json()] == [LONGEST]
