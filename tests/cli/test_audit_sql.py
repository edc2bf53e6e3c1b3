"""The files for people with psql, through psql, over a story made by the product itself.

Every file is run without the right to change anything.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from sb.ids import new_id
from sb.settings import load as load_settings
from sb_worker.settings import WorkerSettings
from sb_worker.sweeps import SWEEPS
from tests import servers
from tests.cli.audit_files import FILES, FOLDER, psql, rows, times
from tests.cli.trail import Trail, new_name, sweep, tell
from tests.conftest import TEMPLATE

pytestmark = pytest.mark.xdist_group("cli-audit")

SINCE = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def trail(
    postgres_server: servers.PostgresServer,
    redis_server: servers.RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Trail]:
    name = new_name()
    postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    found = Trail(postgres_server.url(name))
    trio.run(tell, found, redis_server.url, tmp_path_factory.mktemp("trail"))
    yield found
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_has_a_test_of_its_rows(path: Path) -> None:
    tests = "".join(each.read_text() for each in Path(__file__).parent.glob("test_audit_*.py"))
    assert f"def test_{path.stem}_" in tests


def test_files_ran_without_the_right_to_change_anything(trail: Trail) -> None:
    done = psql(trail.url, "-c", "UPDATE local_users SET disabled = false")
    assert done.returncode == 1
    assert "read-only transaction" in done.stderr


def test_login_failures_tell_why_and_whose(trail: Trail) -> None:
    found = rows(trail.url, "login_failures", since=SINCE)
    assert [
        (row["error_kind"], row["email"], row["failed_login_count"], row["http_request_id"])
        for row in found
    ] == [
        ("missing_fields", "", "", "sign-in-missing"),
        ("user_disabled", "", "", "sign-in-disabled"),
        ("wrong_password", "dev@example.com", "2", "sign-in-wrong-again"),
        ("wrong_password", "dev@example.com", "1", "sign-in-wrong"),
        ("user_not_found", "", "", "sign-in-unknown"),
    ]
    middle = found[2]["occurred_at"]
    later = rows(trail.url, "login_failures", since=middle)
    assert later == found[:3]
    assert rows(trail.url, "login_failures", since="2999-01-01T00:00:00Z") == []


def test_request_chain_tells_the_story_in_its_order(trail: Trail) -> None:
    found = rows(trail.url, "request_chain", request_id=trail.ids["read"])
    agent = next(row["who"] for row in found if row["action"] == "job.claim")
    dev, approver = "dev@example.com", "approver@example.com"
    story = [(row["action"], row["status"], row["who"]) for row in found]
    assert times(found) == sorted(times(found))
    assert story[0] == ("request.submit", "success", dev)
    assert set(story[1:3]) == {
        ("request.approve", "success", approver),
        ("job.enqueue", "success", approver),
    }
    assert story[3:5] == [("job.claim", "success", agent), ("wrap.create", "success", agent)]
    assert set(story[5:7]) == {
        ("job.complete", "success", agent),
        ("request.transition", "success", ""),
    }
    assert story[7:] == [
        ("wrap.retrieve", "denied", approver),
        ("wrap.retrieve", "success", dev),
        ("wrap.retrieve", "denied", dev),
    ]
    assert {row["actor"] for row in found if row["who"] == agent} == {f"agent:{trail.ids['agent']}"}
    assert "p-value" not in str(found)


def test_request_chain_tells_a_request_of_which_nothing_is_recorded_from_none(
    trail: Trail, postgres_server: servers.PostgresServer
) -> None:
    name, untold = new_name(), new_id()
    postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE {trail.url.rpartition('/')[2]}")
    copy = Trail(postgres_server.url(name))
    try:
        copy.execute(
            "INSERT INTO access_requests SELECT (jsonb_populate_record(r, jsonb_build_object("
            "'id', %s::text))).* FROM access_requests AS r WHERE r.id = %s",
            untold,
            trail.ids["pending"],
        )
        path = str(FOLDER / "request_chain.sql")
        for id_, refusal in (
            (untold, "nothing is recorded of the request"),
            (new_id(), "no such request"),
        ):
            done = psql(copy.url, "-v", f"request_id={id_}", "-f", path)
            assert done.returncode == 3
            assert done.stderr.endswith(f" ERROR:  {refusal}: {id_}\n")
    finally:
        postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_request_chain_tells_what_expired(trail: Trail) -> None:
    found = rows(trail.url, "request_chain", request_id=trail.ids["expired"])
    assert [(row["action"], row["actor"]) for row in found] == [
        ("request.submit", f"user:{trail.ids['dev']}"),
        ("request.expired", "system:worker"),
    ]
    assert "request_ttl" in found[1]["metadata"]


def test_wrap_retrievals_tell_who_got_which_key_and_who_did_not(trail: Trail) -> None:
    found = rows(trail.url, "wrap_retrievals", since=SINCE)
    agent = next(row["who"] for row in found if row["actor"].startswith("agent:"))
    assert agent
    assert [(row["who"], row["status"], row["error_kind"], row["request_id"]) for row in found] == [
        (agent, "success", "", trail.ids["patch"]),
        ("dev@example.com", "denied", "already_consumed", trail.ids["read"]),
        ("dev@example.com", "success", "", trail.ids["read"]),
        ("approver@example.com", "denied", "not_requester", trail.ids["read"]),
    ]
    assert {row["key_name"] for row in found if row["status"] == "success"} == {"PASSWORD"}
    assert {(row["target_provider_type"], row["target_secret_ref"]) for row in found} == {
        ("file", "app/db")
    }
    assert rows(trail.url, "wrap_retrievals", since="2999-01-01T00:00:00Z") == []


def test_who_may_approve_tells_every_grant_with_its_scope(trail: Trail) -> None:
    found = rows(trail.url, "who_may_approve")
    team, project = trail.ids["team"], trail.ids["project"]
    assert [
        (row["email"], row["disabled"], row["role"], row["scope"], row["team"], row["project"])
        for row in found
    ] == [
        ("admin@example.com", "f", "admin", "everything", "", ""),
        ("approver@example.com", "f", "approver", "everything", "", ""),
        ("gone@example.com", "t", "approver", "everything", "", ""),
        ("lead@example.com", "f", "approver", f'{{"team_id": "{team}"}}', "Billing", ""),
        ("owner@example.com", "f", "approver", f'{{"project_id": "{project}"}}', "", "Ledger"),
    ]
    assert {row["granted_by"] for row in found} == {"system:test"}


def test_self_service_decisions_tell_what_nobody_else_decided(trail: Trail) -> None:
    found = rows(trail.url, "self_service_decisions", since=SINCE)
    assert [
        (row["id"], row["requester"], row["status"], row["workflow"], row["finding"])
        for row in found
    ] == [
        (trail.ids[name], "admin@example.com", "executed", "standard", finding)
        for name, finding in (
            ("own", "decided by its requester"),
            ("auto", "approved by nobody"),
        )
    ]
    assert rows(trail.url, "self_service_decisions", since="2999-01-01T00:00:00Z") == []


def test_self_service_decisions_tell_what_nobody_approved_and_no_agent_did(
    trail: Trail, postgres_server: servers.PostgresServer
) -> None:
    name = new_name()
    postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE {trail.url.rpartition('/')[2]}")
    copy = Trail(postgres_server.url(name))
    try:
        copy.execute("UPDATE access_requests SET status = 'expired' WHERE status = 'executed'")
        found = rows(copy.url, "self_service_decisions", since=SINCE)
        assert [(row["id"], row["status"]) for row in found] == [
            (trail.ids["own"], "expired"),
            (trail.ids["auto"], "expired"),
        ]
    finally:
        postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_open_requests_by_age_tell_what_waits_for_whom(trail: Trail) -> None:
    found = rows(trail.url, "open_requests_by_age")
    assert [
        (row["id"], row["status"], row["target_secret_ref"], row["approvals"], row["job_status"])
        for row in found
    ] == [
        (trail.ids["overdue"], "pending", "app/overdue", "0", ""),
        (trail.ids["pending"], "pending", "app/pending", "0", ""),
        (trail.ids["queued"], "approved", "app/queued", "1", "queued"),
    ]
    assert {row["requester"] for row in found} == {"dev@example.com"}
    assert {row["approvals_required"] for row in found} == {"1"}
    assert found[0]["age"].startswith("15 days")
    assert found[0]["left"].startswith("-1 days")
    assert found[1]["left"].startswith("13 days 23:")
    assert (found[2]["job_attempts"], found[2]["job_error"]) == ("0", "")


def test_stale_agents_tell_who_has_been_silent(trail: Trail) -> None:
    found = rows(trail.url, "stale_agents", silent_for="5 minutes")
    assert [(row["id"], row["name"], row["status"], row["agent_version"]) for row in found] == [
        (trail.ids["stale"], "stale", "stale", "1.2.3"),
        (trail.ids["silent"], "silent", "active", "1.2.3"),
    ]
    assert {row["provider_connection"] for row in found} == {"with-agent"}
    assert all(row["silent"].startswith("01:0") for row in found)
    everybody = rows(trail.url, "stale_agents", silent_for="0 seconds")
    assert {row["id"] for row in everybody} == {
        trail.ids[name] for name in ("stale", "silent", "quiet", "agent")
    }
    assert rows(trail.url, "stale_agents", silent_for="1 day") == []


def test_sweeper_lag_counts_what_is_overdue_until_it_is_swept(
    trail: Trail, postgres_server: servers.PostgresServer
) -> None:
    name = new_name()
    postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE {trail.url.rpartition('/')[2]}")
    copy = Trail(postgres_server.url(name))
    try:
        copy.execute("UPDATE secret_wraps SET expires_at = now() - interval '2 hours'")
        # Some agent took the queued job and was never heard of again.
        copy.execute(
            "UPDATE sync_jobs SET status = 'claimed', claimed_by = %s, lease_token_hash = 'x',"
            " claim_expires_at = now() - interval '3 hours' WHERE request_id = %s",
            trail.ids["agent"],
            trail.ids["queued"],
        )
        copy.execute(
            "INSERT INTO idempotency_keys (actor, key, route, body_sha256, created_at, expires_at)"
            " VALUES ('user:x', 'k', 'r', 'x', now(), now() - interval '4 hours')"
        )
        _leave_what_ended_long_ago(copy)
        before = rows(copy.url, "sweeper_lag")
        assert [(row["task"], row["overdue"], row["oldest_delay"][:5]) for row in before] == [
            ("agents-stale", "1", "01:00"),
            ("enrollment-tokens-expired", "1", "06:00"),
            ("idempotency-expired", "1", "04:00"),
            ("jobs-recovery", "1", "03:00"),
            ("requests-expired", "1", "1 day"),
            ("sessions-purge", "1", "05:00"),
            ("wraps-expired", "4", "02:00"),
        ]
        trio.run(sweep, copy.url)
        copy.execute("UPDATE sync_jobs SET claim_expires_at = now() + interval '1 minute'")
        after = rows(copy.url, "sweeper_lag")
        assert {(row["overdue"], row["oldest_delay"]) for row in after} == {("0", "")}
        _leave_what_may_not_be_swept(copy, trail)
        after = rows(copy.url, "sweeper_lag")
        assert {row["overdue"] for row in after} == {"0"}
    finally:
        postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _leave_what_ended_long_ago(copy: Trail) -> None:
    """Leave two sessions and two tokens whose end is nearly, and a little more than, long ago."""
    for ended in ("7 days -5 minutes", "7 days 5 hours"):
        copy.execute(
            "INSERT INTO sessions (id, user_id, token_hash, created_at, expires_at,"
            " idle_expires_at) SELECT gen_random_uuid(), user_id, uuid_send(gen_random_uuid()),"
            " created_at, now() - %s::interval, now() - %s::interval FROM sessions LIMIT 1",
            ended,
            ended,
        )
    for ended in ("1 day -5 minutes", "1 day 6 hours"):
        copy.execute(
            "INSERT INTO agent_enrollment_tokens (id, provider_connection_id, name, token_hash,"
            " expires_at, created_by, created_at) SELECT gen_random_uuid(), c.id, 'late',"
            " uuid_send(gen_random_uuid()), now() - %s::interval, u.id, now() - interval '9 days'"
            " FROM provider_connections AS c, local_users AS u LIMIT 1",
            ended,
        )


def test_sweeper_lag_knows_every_sweep() -> None:
    settings = load_settings(WorkerSettings, {"DATABASE_URL": "sqlite:///x.db"})
    no_database: Any = None
    told = re.findall(r"^SELECT '([\w-]+)'", (FOLDER / "sweeper_lag.sql").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(sweep(no_database, settings).name for sweep in SWEEPS)


def _leave_what_may_not_be_swept(copy: Trail, trail: Trail) -> None:
    """Leave a request past its end in an agent's hands, with a spent wrap that has expired."""
    queued = trail.ids["queued"]
    copy.execute(
        "UPDATE access_requests SET status = 'approved', finished_at = NULL,"
        " execute_before_at = now() - interval '1 hour' WHERE id = %s",
        queued,
    )
    copy.execute(
        "INSERT INTO secret_wraps (id, request_id, issued_via, key_name, encrypted_value, nonce,"
        " data_key_ciphertext, kms_key_id, algorithm, content_hmac, byte_length, created_at,"
        " expires_at, consumed_at, consumed_by_agent)"
        " VALUES (gen_random_uuid(), %s, 'request', 'A', '', '', '', 'k', 'AES-256-GCM-AADv1', '',"
        " 0, now(), now() - interval '1 hour', now(), %s)",
        queued,
        trail.ids["agent"],
    )


def test_file_may_come_through_standard_input(trail: Trail) -> None:
    text = (FOLDER / "sweeper_lag.sql").read_text()
    done = psql(trail.url, stdin=text)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(csv.DictReader(io.StringIO(done.stdout)))) == len(SWEEPS)


def test_trail_refuses_changes_in_the_documented_words(trail: Trail) -> None:
    with pytest.raises(Exception, match="audit_events is append-only"):
        trail.execute("DELETE FROM audit_events")
