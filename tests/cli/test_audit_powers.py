"""What a person held at a moment, through psql, up to the very moment in which it changed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sb.ops import accounts, roles, teams
from tests.cli.audit_files import Rows, refused
from tests.cli.governed import BEGINNING, MICROSECOND, Governed, shown

pytestmark = pytest.mark.xdist_group("cli-audit")


def held(governed: Governed, person: str, days: float, *, before: bool = False) -> Rows:
    """Return what the person held then, or in the last moment before."""
    moment = governed.at(days) - (MICROSECOND if before else timedelta(0))
    return governed.ask("grants_of_person_at", person=person, at=moment.isoformat())


def roles_held(governed: Governed, person: str, days: float, *, before: bool = False) -> list[str]:
    return [row["role"] for row in held(governed, person, days, before=before)]


def test_grants_of_person_at_tell_a_revoked_grant_until_it_was_taken_back(
    governed: Governed,
) -> None:
    ann = governed.person("ann")
    grant_id = governed.grant("ann", "developer", -10, reason="ticket 1")
    governed.revoke(grant_id, -5, reason="moved on")
    assert roles_held(governed, ann, -10, before=True) == [""]
    assert roles_held(governed, ann, -10) == ["developer"]
    assert roles_held(governed, ann, -5) == [""]
    (row,) = held(governed, "ANN@example.com", -5, before=True)
    assert (row["grant_id"], row["role"], row["scope"]) == (grant_id, "developer", "everything")
    assert (row["granted_by"], row["reason"]) == ("root@example.com", "ticket 1")
    ended = (row["ended_how"], row["ended_by"], row["ended_reason"])
    assert ended == ("taken back", "root@example.com", "moved on")
    assert (row["expires_at"], row["without_effect"]) == ("", "")
    assert "secret.request" in row["permissions"].split()


def test_grants_of_person_at_tell_a_grant_until_it_ran_out(governed: Governed) -> None:
    grant_id = governed.grant("ann", "developer", -10, ends=-5)
    assert roles_held(governed, "ann@example.com", -5) == [""]
    (row,) = held(governed, "ann@example.com", -5, before=True)
    assert (row["ended_how"], row["ended_by"]) == ("ran out", "")
    assert row["ended_at"] == row["expires_at"] != ""
    # Cleared away later, it had ended by itself all the same.
    governed.revoke(grant_id, -2, reason="tidy")
    assert held(governed, "ann@example.com", -5, before=True) == [row]
    assert roles_held(governed, "ann@example.com", -3) == [""]


def test_grants_of_person_at_tell_end_and_reason_as_they_were(governed: Governed) -> None:
    grant_id = governed.grant("ann", "developer", -20, ends=-10, reason="first")
    governed.edit_grant(grant_id, -15, expires_at=governed.at(-4), reason="longer")
    governed.edit_grant(grant_id, -12, expires_at=governed.at(-8))
    before, longer, at_last = (
        held(governed, "ann@example.com", days)[0] for days in (-16, -15, -12)
    )
    assert [row["reason"] for row in (before, longer, at_last)] == ["first", "longer", "longer"]
    assert before["expires_at"] < at_last["expires_at"] < longer["expires_at"]
    assert {row["ended_at"] for row in (before, longer, at_last)} == {at_last["expires_at"]}
    assert roles_held(governed, "ann@example.com", -8, before=True) == ["developer"]
    assert roles_held(governed, "ann@example.com", -8) == [""]


def test_grants_of_person_at_tell_the_role_as_it_was(governed: Governed) -> None:
    role_id = governed.role("looker", "secret.list", days=-30)
    grant_id = governed.grant("ann", "looker", -20)
    governed.edit_role(role_id, -15, permissions=["secret.list", "audit.read"])
    governed.edit_role(role_id, -10, name="reader")
    columns = ("role", "permissions")
    told = [shown(held(governed, "ann@example.com", days), *columns) for days in (-16, -15, -10)]
    assert told == [
        [("looker", "secret.list")],
        [("looker", "secret.list audit.read")],
        [("reader", "secret.list audit.read")],
    ]
    governed.revoke(grant_id, -5)
    governed.run(roles.delete, caller=governed.caller(), role_id=role_id, now=governed.at(-4))
    assert [
        shown(held(governed, "ann@example.com", days), *columns) for days in (-16, -15, -10)
    ] == told


def test_grants_of_person_at_find_people_by_the_address_they_had(governed: Governed) -> None:
    ann = governed.person("ann")
    governed.grant("ann", "developer", -30)
    for days, email in ((-20, "second@example.com"), (-10, "third@example.com")):
        governed.run(
            accounts.update,
            by=governed.caller(),
            user_id=ann,
            email=email,
            display_name=None,
            now=governed.at(days),
        )
    other = governed.person("ann2", -8)
    governed.run(
        accounts.update,
        by=governed.caller(),
        user_id=other,
        email="ann@example.com",
        display_name=None,
        now=governed.at(-5),
    )
    asked = {
        ("second@example.com", -15.0): [ann],
        ("third@example.com", -25.0): [ann],
        ("ann@example.com", -1.0): [other],
        ("ann@example.com", -25.0): [other, ann],
    }
    for (email, moment), ids in asked.items():
        assert [row["user_id"] for row in held(governed, email, moment)] == ids, (email, moment)
    for moment in (-25.0, -10.0):
        asked_at = {"person": "second@example.com", "at": governed.at(moment).isoformat()}
        assert refused(governed.url, "grants_of_person_at", **asked_at) == [
            "ERROR:  no such person: second@example.com",
            "HINT:  At another time this was the address of third@example.com.",
        ]


def test_grants_of_person_at_mark_what_had_no_effect(governed: Governed) -> None:
    ann = governed.person("ann")
    project_id = governed.project("ledger")
    environment_id = governed.environment(project_id)
    governed.grant("ann", "developer", -30, scope={"environment_id": environment_id})
    for op, days in ((accounts.disable, -20), (accounts.enable, -15)):
        governed.run(op, by=governed.caller(), user_id=ann, now=governed.at(days))
    governed.delete_environment(environment_id, -10)
    governed.run(accounts.disable, by=governed.caller(), user_id=ann, now=governed.at(-5))
    told = {days: held(governed, ann, days)[0] for days in (-25, -20, -15, -10, -5)}
    assert [row["without_effect"] for row in told.values()] == [
        "",
        "account disabled",
        "",
        "environment deleted",
        "account disabled",
    ]
    assert {row["scope"] for row in told.values()} == {"environment dev of ledger"}


def test_grants_of_person_at_tell_scopes_in_words(governed: Governed) -> None:
    team_id = governed.team("gone")
    project_id = governed.project("ledger")
    first = governed.grant("ann", "developer", -20, scope={"team_id": team_id, "provider": "vault"})
    narrow = {"project_id": project_id, "secret_ref_prefix": "app/", "cluster": "east"}
    governed.grant("ann", "approver", -20, scope=narrow)
    governed.revoke(first, -10)
    governed.run(teams.delete, caller=governed.caller(), team_id=team_id, now=governed.at(-5))
    found = held(governed, "ann@example.com", -15)
    assert {(row["role"], row["scope"]) for row in found} == {
        ("developer", "team gone, provider vault"),
        ("approver", "project ledger, paths from app/, cluster east"),
    }


def test_grants_of_person_at_know_when_a_grant_began_that_no_event_made(
    governed: Governed,
) -> None:
    governed.grant("ann", "admin", -50)
    (given,) = held(governed, "root@example.com", BEGINNING)
    assert given["granted_by"] == "system:bootstrap"
    governed.revoke(given["grant_id"], -1, by="ann")
    assert roles_held(governed, "root@example.com", BEGINNING, before=True) == [""]
    (row,) = held(governed, "root@example.com", BEGINNING)
    assert (row["role"], row["granted_by"]) == ("admin", "system:bootstrap")
    assert (row["granted_at"], row["ended_by"]) == (given["granted_at"], "ann@example.com")
