"""What applying a document leaves in the trail beside the rows of its steps."""

from __future__ import annotations

import copy
import hashlib
from functools import partial
from typing import Any

import pytest
import trio

from sb.db.rehearsal import rehearse
from sb.errors import InvalidInputError
from sb.http.organisation_document import OrganisationDocument
from sb.ops import organisation
from sb.ops.audit import AuditEvent
from sb.ops.callers import Caller
from tests.ops.world import NOW, World

DOCUMENT: dict[str, Any] = {
    "version": 1,
    "teams": [{"path": "a"}, {"path": "a/b"}],
    "projects": [{"name": "p", "team": "a", "environments": [{"name": "dev"}]}],
}


@pytest.fixture
def admin(world: World) -> Caller:
    return world.person("ada", "admin")


def given(**changes: Any) -> dict[str, Any]:
    raw = {**copy.deepcopy(DOCUMENT), **changes}
    return OrganisationDocument.model_validate(raw, strict=True).given


def apply(world: World, admin: Caller, document: dict[str, Any]) -> None:
    world.run(organisation.apply, caller=admin, document=document, now=NOW)


def applied(world: World) -> list[AuditEvent]:
    return world.events(action="organisation.applied")


def test_apply_that_changes_something_leaves_one_row_about_all_of_it(
    world: World, admin: Caller
) -> None:
    apply(world, admin, given())
    (event,) = applied(world)
    text = (
        '{"projects":[{"environments":[{"name":"dev"}],"name":"p","team":"a"}],'
        '"teams":[{"path":"a"},{"path":"a/b"}],"version":1}'
    )
    assert (event.actor, event.resource) == (admin.actor, "organisation:apply")
    assert (event.status, event.http_request_id) == ("success", "req-1")
    assert event.metadata == {
        "document_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "steps": {"team": {"create": 2}, "project": {"create": 1}, "environment": {"create": 1}},
    }
    # Again, nothing changes; then a part does.
    apply(world, admin, given())
    assert applied(world) == [event]
    apply(world, admin, given(teams=[{"path": "a", "description": "x"}, {"path": "c"}]))
    assert [one.metadata["steps"] for one in applied(world)[1:]] == [
        {
            "team": {"create": 1, "update": 1},
            "project": {"unchanged": 1},
            "environment": {"unchanged": 1},
        }
    ]


def test_apply_that_is_refused_or_only_planned_leaves_no_row(world: World, admin: Caller) -> None:
    bad = given(projects=[{"name": "p", "team": "none"}])
    world.refuse(InvalidInputError, organisation.apply, caller=admin, document=bad, now=NOW)
    op = partial(organisation.apply, caller=admin, document=given(), now=NOW)
    assert trio.run(rehearse, world.db, op)
    assert applied(world) == []


def test_fingerprint_is_of_times_as_they_are_kept() -> None:
    def document(end: str) -> dict[str, Any]:
        grant = {"person": "a@b.c", "role": "developer", "scope": {}, "expires_at": end}
        return given(grants=[grant])

    one, same, other = (
        organisation.fingerprint(document(end))
        for end in (
            "2026-06-01T12:00:00Z",
            "2026-06-01T14:00:00+02:00",
            "2026-06-01T12:00:01Z",
        )
    )
    assert one == same != other


def test_apply_takes_what_may_be_left_out_as_its_default(world: World, admin: Caller) -> None:
    world.connection()
    bare = {"provider": "file", "secret_ref": "app/db"}
    document = given(
        roles=[{"name": "bare"}],
        projects=[{"name": "p", "environments": [{"name": "dev"}], "bindings": [bare]}],
        workflows=[{"name": "bare"}],
        policies=[{"name": "bare", "selector": {"operation": "read"}, "workflow": "bare"}],
    )
    apply(world, admin, document)
    (row,) = world.rows("SELECT type, kind, risk_level FROM environments")
    assert (row["type"], row["kind"], row["risk_level"]) == ("other", "non_prod", 1)
    (row,) = world.rows("SELECT allowed_keys, allowed_ops FROM project_secrets")
    assert (row["allowed_keys"], row["allowed_ops"]) == (None, ["read"])
    apply(world, admin, document)
    assert len(applied(world)) == 1
