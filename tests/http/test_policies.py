"""Workflows, policy rules and platform settings over real HTTP: bodies, codes, pages, metrics."""

from __future__ import annotations

import dataclasses
from typing import Any

import httpx
import pytest

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.http.routes.workflows import UpdateWorkflow, WorkflowBody
from sb.ids import new_id
from sb.ops import workflows
from tests.ops import rows
from tests.stack import Person, Stack

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
NON_PROD = {"environment_kind": "non_prod"}
SETTING = "/platform-settings/platform_reserved_priority"


@dataclasses.dataclass
class Office:
    """An administrator, and one team with a project and an author of their rules."""

    plane: Stack
    admin: Person
    author: Person
    stranger: Person
    team: str
    project: str
    workflow: str

    @property
    def families(self) -> list[tuple[str, str, str]]:
        """Path, kind and refusal of each family of scoped routes."""
        return [
            (f"/projects/{self.project}/policy-rules", "project", "out_of_scope_policy"),
            (f"/teams/{self.team}/policy-rules", "team", "out_of_scope_team_policy"),
        ]

    def draft(self, **facts: Any) -> dict[str, Any]:
        return {
            "name": "rule",
            "selector": NON_PROD,
            "workflow_id": self.workflow,
            "priority": 100,
            **facts,
        }

    def count(self, metric: str, **labels: str) -> float:
        return self.plane.state.registry.get_sample_value(metric, labels) or 0


@pytest.fixture
async def office(plane: Stack) -> Office:
    admin = await plane.person("admin", "admin")
    answer = await admin.post("/workflows", {"name": "open", "scoped_policy_authorable": True})
    assert answer.status_code == 201, answer.text
    team, project, other = new_id(), new_id(), new_id()
    await plane.db.run(_tenancy, team=team, project=project, other=other)
    return Office(
        plane=plane,
        admin=admin,
        author=await plane.person("author", "policy_author", {"team_id": team}),
        stranger=await plane.person("stranger", "policy_author", {"team_id": other}),
        team=team,
        project=project,
        workflow=answer.json()["id"],
    )


def _tenancy(tx: Transaction, *, team: str, project: str, other: str) -> None:
    facts = {"status": "active", "created_at": utc_now(), "updated_at": utc_now()}
    rows.insert(tx, "teams", id=team, name="team", **facts)
    rows.insert(tx, "teams", id=other, name="other", **facts)
    rows.insert(tx, "projects", id=project, name="project", team_id=team, **facts)


async def put(person: Person, path: str, json: Any) -> httpx.Response:
    return await person.http.put(f"/api/v1{path}", json=json)


async def delete(person: Person, path: str) -> httpx.Response:
    return await person.http.delete(f"/api/v1{path}")


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["error"]) == (status, code), answer.text
    found: dict[str, Any] = answer.json()
    return found


async def paged(person: Person, path: str) -> list[Any]:
    found: list[Any] = []
    target: str | None = f"/api/v1{path}"
    while target:
        page = await person.http.get(target)
        assert page.status_code == 200, page.text
        body = page.json()
        found += body["rules"] if isinstance(body, dict) else body
        link = page.headers.get("link")
        target = link.partition(">")[0].removeprefix("<") if link else None
    return found


# --- workflows


async def test_workflow_is_made_changed_and_deleted(office: Office) -> None:
    admin = office.admin
    made = await admin.post("/workflows", {"name": "w", "min_approvers": 2})
    assert made.status_code == 201
    body = made.json()
    assert {*body} == {*WorkflowBody.model_fields} == {*workflows.KNOBS, "id", "is_system",
                                                       "created_at", "updated_at"}  # fmt: skip
    path = f"/workflows/{body['id']}"
    assert (await admin.get(path)).json() == body
    changed = await put(admin, path, {"request_ttl_seconds": 60, "approver_role_id": None})
    assert changed.json() == {
        **body,
        "request_ttl_seconds": 60,
        "updated_at": changed.json()["updated_at"],
    }
    assert (await delete(admin, path)).status_code == 204
    refused(await admin.get(path), 404, "workflow_not_found")
    refused(await delete(admin, path), 404, "workflow_not_found")
    trail = (await admin.get("/audit-events", params={"resource": f"workflow:{body['id']}"})).json()
    actions = [event["action"] for event in trail]
    assert actions == ["workflow.delete", "workflow.update", "workflow.create"]


async def test_every_knob_travels_both_ways(office: Office) -> None:
    knobs = {*UpdateWorkflow.model_fields}
    assert knobs == {*workflows.KNOBS}
    shown = (await office.admin.get(f"/workflows/{office.workflow}")).json()
    same = await put(
        office.admin, f"/workflows/{office.workflow}", {name: shown[name] for name in knobs}
    )
    assert same.json() == shown


BAD_KNOBS: list[tuple[dict[str, Any], str]] = [
    ({"min_approvers": 0}, "min_approvers"),
    ({"min_approvers": -1}, "min_approvers"),
    ({"min_approvers": None}, "min_approvers"),
    ({"min_approvers": "1"}, "min_approvers"),
    ({"auto_approve": None}, "auto_approve"),
    ({"enabled": 1}, "enabled"),
    ({"request_ttl_seconds": 0}, "request_ttl_seconds"),
    ({"request_ttl_seconds": 7776001}, "request_ttl_seconds"),
    ({"fill_ttl_seconds": 1.5}, "fill_ttl_seconds"),
    ({"name": ""}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"approver_role_id": "x"}, "approver_role_id"),
    ({"approver_role_id": MISSING}, "approver_role_id"),
    ({"notification_channels": [""]}, "notification_channels.0"),
    ({"is_system": True}, "is_system"),
    ({"id": MISSING}, "id"),
]


async def test_workflow_refuses_a_bad_knob_by_name(office: Office) -> None:
    path = f"/workflows/{office.workflow}"
    before = (await office.admin.get(path)).json()
    for body, field in BAD_KNOBS:
        for answer in (
            await office.admin.post("/workflows", {"name": "x", **body}),
            await put(office.admin, path, body),
        ):
            fields = refused(answer, 400, "invalid_request")["fields"]
            assert [fault["field"] for fault in fields] == [field]
    assert (await office.admin.get(path)).json() == before
    assert len(await paged(office.admin, "/workflows")) == 2


async def test_workflow_conflicts_have_their_codes(office: Office) -> None:
    admin, path = office.admin, f"/workflows/{office.workflow}"
    refused(await admin.post("/workflows", {"name": "open"}), 409, "workflow_name_taken")
    (standard,) = [w for w in await paged(admin, "/workflows") if w["is_default"]]
    refused(await delete(admin, f"/workflows/{standard['id']}"), 409, "system_row")
    off = await put(admin, f"/workflows/{standard['id']}", {"enabled": False})
    refused(off, 409, "default_workflow_required")
    await admin.post("/policies", office.draft())
    in_use = refused(await delete(admin, path), 409, "workflow_in_use")
    assert (in_use["rules"], in_use["requests"]) == (1, 0)
    moved = await put(admin, path, {"is_default": True})
    assert moved.json()["is_default"] is True
    assert [w["id"] for w in await paged(admin, "/workflows?limit=1") if w["is_default"]] == [
        office.workflow
    ]


async def test_workflows_need_their_permissions(office: Office) -> None:
    developer = await office.plane.person("dev", "developer")
    path = f"/workflows/{office.workflow}"
    for answer in (
        await developer.get("/workflows"),
        await developer.get(path),
        await developer.get("/workflows/scoped-policy-authorable"),
        await office.author.post("/workflows", {"name": "x"}),
        await put(office.author, path, {}),
        await delete(office.author, path),
    ):
        refused(answer, 403, "permission_denied")
    assert (await office.author.get(path)).status_code == 200
    listed = (await office.author.get("/workflows/scoped-policy-authorable")).json()
    assert [row["id"] for row in listed] == [office.workflow]
    refused(await office.admin.get("/workflows/scoped-policy-authorable"), 403, "permission_denied")


async def test_creating_again_with_the_same_key_makes_one(office: Office) -> None:
    headers = {"Idempotency-Key": "once"}
    families = [(office.admin, "/workflows", {"name": "once"})]
    families += [(office.admin, "/policies", office.draft())]
    families += [(office.author, path, office.draft()) for path, _, _ in office.families]
    for person, path, body in families:
        first = await person.post(path, body, headers=headers)
        second = await person.post(path, body, headers=headers)
        assert first.status_code == second.status_code == 201, first.text
        assert first.json() == second.json()
    labels = {"permission_used": "policy.edit", "scope": "platform"}
    assert office.count("policy_rules_created_total", **labels) == 1


# --- rules of the platform


async def test_policy_is_made_changed_and_deleted(office: Office) -> None:
    admin = office.admin
    body = {"name": "r", "selector": {"operation": "read"}, "workflow_id": office.workflow}
    made = (await admin.post("/policies", body)).json()
    assert (made["priority"], made["enabled"], made["is_system"]) == (100, True, False)
    assert (made["project_id"], made["team_id"], made["requires_mfa"]) == (None, None, False)
    path = f"/policies/{made['id']}"
    changed = await put(admin, path, {"requires_mfa": True, "priority": 0})
    assert changed.json() == {
        **made,
        "requires_mfa": True,
        "priority": 0,
        "updated_at": changed.json()["updated_at"],
    }
    assert (await admin.get(path)).json() == changed.json()
    assert (await delete(admin, path)).status_code == 204
    refused(await admin.get(path), 404, "policy_not_found")
    history = (await admin.get(f"{path}/history")).json()
    assert [entry["action"] for entry in history["entries"]] == [
        "policy.create",
        "policy.update",
        "policy.delete",
    ]
    labels = {"permission_used": "policy.edit", "scope": "platform"}
    for verb in ("created", "updated", "deleted"):
        assert office.count(f"policy_rules_{verb}_total", **labels) == 1
    assert office.count("policy_rule_history_views_total", scope="platform") == 1
    assert office.count("policy_rules_denied_total", reason="not_found") == 0


async def test_policy_refusals_have_their_codes(office: Office) -> None:
    admin = office.admin
    nobody = (await admin.post("/workflows", {"name": "n", "auto_approve": True})).json()["id"]
    for facts, status, code in (
        ({"selector": {}}, 400, "policy_scope_too_broad"),
        ({"selector": {"operation": "x"}}, 400, "policy_scope_too_broad"),
        ({"selector": {"type": "x"}}, 400, "invalid_request"),
        ({"selector": []}, 400, "invalid_request"),
        ({"selector": None}, 400, "invalid_request"),
        ({"project_id": office.project, "team_id": office.team}, 400, "invalid_request"),
        ({"project_id": MISSING}, 400, "invalid_request"),
        ({"workflow_id": MISSING}, 400, "invalid_request"),
        ({"workflow_id": nobody, "selector": {"operation": "read"}}, 409,
         "auto_approve_needs_non_prod"),
        ({"direct_reveal_allowed": True, "selector": {"operation": "reveal"}}, 400,
         "direct_reveal_needs_non_prod"),
        (
            {"project_id": office.project, "selector": {**NON_PROD, "project_id": MISSING}},
            400,
            "policy_selector_mismatch",
        ),
        ({"reveal_ttl_seconds": 301}, 400, "invalid_request"),
        ({"priority": 2**31}, 400, "invalid_request"),
        ({"is_system": True}, 400, "invalid_request"),
    ):  # fmt: skip
        refused(await admin.post("/policies", office.draft(**facts)), status, code)
    assert office.count("policy_rules_denied_total", reason="scope_too_broad") == 2
    assert office.count("policy_rules_denied_total", reason="selector_mismatch") == 1
    assert len(await paged(admin, "/policies")) == 1


async def test_policies_are_listed_in_order_of_precedence(office: Office) -> None:
    for priority in (5, 9, 5, 7):
        body = office.draft(name=f"{priority}", priority=priority)
        assert (await office.admin.post("/policies", body)).status_code == 201
    found = await paged(office.admin, "/policies?limit=2")
    assert [rule["priority"] for rule in found] == [9, 7, 5, 5, 0]
    for cursor in ("x", "MXwyfDN8NA", "w6k", "OTl8MHwyMDI2LTAxLTAxfDAx"):
        answer = await office.admin.get("/policies", params={"cursor": cursor})
        refused(answer, 400, "invalid_cursor")


async def test_policies_are_for_administrators_only(office: Office) -> None:
    rule = (await office.admin.post("/policies", office.draft())).json()["id"]
    for answer in (
        await office.author.get("/policies"),
        await office.author.get(f"/policies/{rule}"),
        await office.author.get(f"/policies/{rule}/history"),
        await office.author.post("/policies", office.draft()),
        await put(office.author, f"/policies/{rule}", {}),
        await delete(office.author, f"/policies/{rule}"),
    ):
        refused(answer, 403, "permission_denied")


async def test_history_is_paged_from_the_newest(office: Office) -> None:
    rule = (await office.admin.post("/policies", office.draft())).json()["id"]
    for priority in range(1, 6):
        await put(office.admin, f"/policies/{rule}", {"priority": priority})
    path: str | None = f"/api/v1/policies/{rule}/history?limit=4"
    pages = []
    while path:
        page = await office.admin.http.get(path)
        pages.append(page.json())
        link = page.headers.get("link")
        path = link.partition(">")[0].removeprefix("<") if link else None
    assert [(len(page["entries"]), page["has_more"], page["limit"]) for page in pages] == [
        (4, True, 4),
        (2, False, 4),
    ]
    assert pages[0]["entries"][-1]["changes"] == [{"key": "priority", "before": 4, "after": 5}]
    cut = await office.admin.get(f"/policies/{rule}/history", params={"limit": 10_000})
    assert cut.json()["limit"] == 500
    none = await office.admin.get(f"/policies/{rule}/history", params={"limit": 0})
    refused(none, 400, "invalid_request")


# --- rules of projects and teams


async def test_scoped_rule_is_made_changed_and_deleted(office: Office) -> None:
    for path, kind, _ in office.families:
        answer = await office.author.post(path, office.draft(enabled=False))
        assert answer.status_code == 201, answer.text
        body = answer.json()
        rule = body["rule"] if kind == "team" else body
        assert rule[f"{kind}_id"] == getattr(office, kind)
        assert (rule["selector"], rule["selector_keys"]) == (NON_PROD, ["environment_kind"])
        assert (rule["enabled"], rule["is_system"], rule["is_platform_inherited"]) == (
            False,
            False,
            False,
        )
        assert "direct_reveal_allowed" not in rule
        if kind == "team":
            assert body["priority_cap"] == 9000
        changed = await put(office.author, f"{path}/{rule['id']}", {"priority": 5})
        shown = await office.author.get(f"{path}/{rule['id']}")
        assert changed.json() == shown.json()
        history = await office.author.get(f"{path}/{rule['id']}/history")
        assert [entry["action"] for entry in history.json()["entries"]] == [
            "policy.create",
            "policy.update",
        ]
        assert (await delete(office.author, f"{path}/{rule['id']}")).status_code == 204
        refused(await office.author.get(f"{path}/{rule['id']}"), 404, "policy_not_found")
        labels = {"permission_used": "policy.author", "scope": kind}
        for verb in ("created", "updated", "deleted"):
            assert office.count(f"policy_rules_{verb}_total", **labels) == 1
        assert office.count("policy_rule_history_views_total", scope=kind) == 1


async def test_inherited_rules_show_keys_and_never_values(office: Office) -> None:
    selector = {**NON_PROD, "secret_ref_prefix": "hidden-prefix/"}
    await office.admin.post("/policies", office.draft(name="platform", selector=selector))
    team_path, project_path = f"/teams/{office.team}/policy-rules", office.families[0][0]
    await office.author.post(team_path, office.draft(name="team", selector=selector))
    rules = await paged(office.author, f"{project_path}?limit=1")
    assert [rule["name"] for rule in rules[:2]] == ["team", "platform"]
    assert [rule["is_team_inherited"] for rule in rules] == [True, False, False]
    assert [rule["is_platform_inherited"] for rule in rules] == [False, True, True]
    for rule in rules[:2]:
        assert rule["selector"] is None
        assert rule["selector_keys"] == ["environment_kind", "secret_ref_prefix"]
        shown = await office.author.get(f"{project_path}/{rule['id']}")
        assert "hidden-prefix" not in shown.text
    assert rules[0]["team_name"] == "team"
    own = (await office.author.get(team_path)).json()
    assert own["rules"][0]["selector"] == selector
    assert own["rules"][1]["selector"] is None
    assert [rule["is_ancestor_inherited"] for rule in own["rules"]] == [False, False, False]


async def test_coverage_is_asked_first_audited_and_counted_once(office: Office) -> None:
    for path, kind, code in office.families:
        made = (await office.author.post(path, office.draft())).json()
        rule = made["rule"]["id"] if kind == "team" else made["id"]
        reason = {"project": "out_of_scope", "team": "out_of_team_scope"}[kind]
        seen = 0
        for rule_id in (rule, MISSING):
            for answer in (
                await office.stranger.get(path),
                await office.stranger.get(f"{path}/{rule_id}"),
                await office.stranger.get(f"{path}/{rule_id}/history"),
                await office.stranger.post(path, office.draft()),
                await put(office.stranger, f"{path}/{rule_id}", {"name": "x"}),
                await delete(office.stranger, f"{path}/{rule_id}"),
            ):
                body = refused(answer, 403, code)
                assert {*body} == {"error", "message", "request_id"}
                seen += 1
        assert office.count("policy_rules_denied_total", reason=reason) == seen
        query = {
            "action": "policy.denied_out_of_scope",
            "resource": f"{kind}:{made_at(office, kind)}",
        }
        events = (await office.admin.get("/audit-events", params=query)).json()
        assert len(events) == seen
        assert {event["status"] for event in events} == {"denied"}
        assert rule not in str(events)


def made_at(office: Office, kind: str) -> str:
    return office.team if kind == "team" else office.project


async def test_missing_project_or_team_looks_like_one_out_of_scope(office: Office) -> None:
    for noun, code in (("projects", "out_of_scope_policy"), ("teams", "out_of_scope_team_policy")):
        real = {"projects": office.project, "teams": office.team}[noun]
        answers = [await office.stranger.get(f"/{noun}/{i}/policy-rules") for i in (real, MISSING)]
        first, second = (refused(answer, 403, code) for answer in answers)
        assert first["message"] == second["message"]
    developer = await office.plane.person("dev", "developer")
    for path, _, _ in office.families:
        refused(await developer.get(path), 403, "permission_denied")
        refused(await office.admin.get(path), 403, "permission_denied")


async def test_scoped_refusals_have_their_codes_and_are_counted(office: Office) -> None:
    closed = (await office.admin.post("/workflows", {"name": "closed"})).json()["id"]
    platform = (await office.admin.post("/policies", office.draft())).json()["id"]
    for path, _, _ in office.families:
        for facts, status, code in (
            ({"priority": 9000}, 400, "policy_priority_reserved"),
            ({"selector": {}}, 400, "policy_scope_too_broad"),
            ({"selector": {"environment_kind": "prod"}}, 403, "prod_policy_not_allowed_for_scope"),
            ({"workflow_id": closed}, 403, "workflow_not_authorable_for_scope"),
            ({"workflow_id": MISSING}, 403, "workflow_not_authorable_for_scope"),
            ({"direct_reveal_allowed": True}, 400, "invalid_request"),
            ({"project_id": office.project}, 400, "invalid_request"),
        ):
            refused(await office.author.post(path, office.draft(**facts)), status, code)
        answer = await put(office.author, f"{path}/{platform}", {"enabled": False})
        refused(answer, 403, "platform_policy_not_editable")
        answer = await delete(office.author, f"{path}/{platform}")
        refused(answer, 403, "platform_policy_not_editable")
        refused(await delete(office.author, f"{path}/{MISSING}"), 404, "policy_not_found")
        refused(await put(office.author, f"{path}/{platform}", {"name": None}), 400,
                "invalid_request")  # fmt: skip
    for reason, times in (
        ("priority_reserved", 2),
        ("scope_too_broad", 2),
        ("prod_blocked", 2),
        ("workflow_not_authorable", 4),
        ("platform_owned", 4),
        ("not_found", 2),
    ):
        assert office.count("policy_rules_denied_total", reason=reason) == times
    for action, times in (
        ("policy.denied", 6),
        ("policy.denied_workflow_not_authorable", 4),
    ):
        events = (await office.admin.get("/audit-events", params={"action": action})).json()
        assert len(events) == times


# --- platform settings


async def test_setting_is_read_and_changed(office: Office) -> None:
    admin = office.admin
    found = (await admin.get(SETTING)).json()
    assert (found["value"], found["updated_by"]) == (9000, None)
    assert (await admin.get("/platform-settings")).json() == [found]
    async with office.plane.coord.subscribe(
        "settings:platform_reserved_priority:changed"
    ) as signals:
        changed = await put(admin, SETTING, {"value": 400, "key": "ignored"})
        await signals.wait()
    assert (changed.json()["value"], changed.json()["updated_by"]) == (400, f"user:{admin.id}")
    # What is set decides the next call, with no cache in between.
    path = office.families[0][0]
    refusal = await office.author.post(path, office.draft(priority=400))
    assert refused(refusal, 400, "policy_priority_reserved")["cap"] == 400
    teams = (await office.author.get(office.families[1][0])).json()
    assert teams["priority_cap"] == 400


async def test_setting_refusals_have_their_codes_and_are_counted(office: Office) -> None:
    admin = office.admin
    for value in ("400", 400.5, True, None, 99, 1_000_001, [400]):
        body = refused(await put(admin, SETTING, {"value": value}), 400, "invalid_platform_setting")
        assert (body["min"], body["max"]) == (100, 1_000_000)
    refused(await put(admin, SETTING, {}), 400, "invalid_platform_setting")
    for key in ("other", "PLATFORM_RESERVED_PRIORITY", "%00", "a" * 500):
        path = f"/platform-settings/{key}"
        refused(await admin.get(path), 404, "unknown_platform_setting")
        refused(await put(admin, path, {"value": 400}), 404, "unknown_platform_setting")
    refused(await put(admin, SETTING, {"value": 400, "extra": 1}), 400, "invalid_request")
    for person in (office.author, office.stranger):
        refused(await person.get(SETTING), 403, "permission_denied")
        refused(await put(person, SETTING, {"value": 400}), 403, "permission_denied")
    await put(admin, SETTING, {"value": 400})
    known = {"key": "platform_reserved_priority"}
    for labels, times in (
        ({**known, "result": "invalid"}, 8),
        ({**known, "result": "success"}, 1),
        ({"key": "unknown", "result": "unknown"}, 4),
        ({**known, "result": "error"}, 0),
    ):
        assert office.count("platform_setting_updates_total", **labels) == times
