"""The troubleshooting page: its commands, run as they stand there, and what it promises of each.

Only the address of the front door differs. Out of scope, because this release does not have it: the
web pages ("Failed to load …", the Submit drawer, the Wraps card), which are tested as the calls
behind them; AWS Secrets Manager and its region; sign-in over OIDC and with a second factor; Vault's
own command line. The commands in containers are compared with the compose file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from tests import servers
from tests.cli.installation import Installation, enrolment_token, installed, is_ready
from tests.cli.page_commands import (
    ALL_EVENTS,
    DENIED_LOGINS,
    HEARTBEAT,
    LAST_HOUR,
    ONE_REQUEST,
    READY,
    RETRIEVALS,
)
from tests.cli.running import until
from tests.conftest import TEMPLATE
from tests.guards.source import ROOT
from tests.stack import PASSWORD

pytestmark = pytest.mark.xdist_group("cli-page")

TASKS = {
    "wraps-expired",
    "requests-expired",
    "jobs-recovery",
    "agents-stale",
    "idempotency-expired",
    "sessions-purge",
    "enrollment-tokens-expired",
}

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def page(
    postgres_server: servers.PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    name = "t_troubleshooting"
    postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    home = tmp_path_factory.mktemp("page")
    with (
        servers.redis() as redis,
        installed(home, postgres_server.url(name), redis) as found,
    ):
        found.vault.put("app/db", {"PASSWORD": "p-value", "USER": "u-value"})
        found.vault.put("app/closed", {"PASSWORD": "closed-value"})
        yield found
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def read(page: Installation) -> dict[str, Any]:
    """A request whose value was read and can be revealed."""
    return page.approved("app/db", "PASSWORD", until_status="executed")


def metrics(port: int) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def log_of(page: Installation, name: str, **fields: Any) -> list[dict[str, Any]]:
    """Return the log lines of the process with these fields."""
    return [
        record
        for record in page.processes[name].records()
        if all(record.get(key) == value for key, value in fields.items())
    ]


# "Failed to load …" on every page


def test_readiness_is_200_while_everything_is_there(page: Installation) -> None:
    (found,) = page.objects(READY)
    assert found["status"] == "ready"
    assert found["checks"] == {"postgres": "ok", "redis": "ok", "schema": "ok"}


def test_readiness_names_redis_when_it_is_away(page: Installation) -> None:
    page.redis.stop()
    try:
        until(lambda: not is_ready(page.api_port))
        (found,) = page.objects(READY)
        assert found["failures"] == {"redis": "unreachable"}
        assert page.bash(f"curl -fsS {READY.split()[-1]}").returncode == 22
    finally:
        page.redis.start()
    until(lambda: is_ready(page.api_port) and is_ready(page.worker_port))


def test_readiness_names_postgres_when_it_is_away(page: Installation) -> None:
    name = page.database.rpartition("/")[2]
    with psycopg.connect(page.database.replace(name, "postgres"), autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        try:
            until(lambda: not is_ready(page.api_port))
            (found,) = page.objects(READY)
            assert found["status"] == "not_ready"
            assert "postgres" in found["failures"]
            assert "redis" not in found["failures"]
            assert "accepting" not in str(found), "the driver's words are for the log"
        finally:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    until(lambda: is_ready(page.api_port) and is_ready(page.worker_port))


# Login returns 401 with a valid password


def log_in(page: Installation, body: dict[str, str], request_id: str) -> httpx.Response:
    url = f"{page.url}/api/v1/auth/login"
    return httpx.post(url, json=body, headers={"X-Request-Id": request_id})


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("user_not_found", {"email": "admni@example.com", "password": PASSWORD}, 401),
        ("wrong_password", {"email": "Guest@Example.com", "password": "x"}, 401),
        ("user_disabled", {"email": "guest@example.com", "password": PASSWORD}, 401),
        ("missing_fields", {"email": "guest@example.com"}, 401),
        ("missing_fields", {"e-mail": "guest@example.com", "password": PASSWORD}, 400),
    ],
)
def test_audit_log_tells_why_a_sign_in_was_refused(
    page: Installation, kind: str, body: dict[str, str], status: int
) -> None:
    request_id = f"{kind}-{len(body)}"
    disabled = kind == "user_disabled"
    page.sql("UPDATE local_users SET disabled = %s WHERE email = 'guest@example.com'", disabled)
    try:
        assert log_in(page, body, request_id).status_code == status
    finally:
        page.sql("UPDATE local_users SET disabled = FALSE WHERE email = 'guest@example.com'")
    for command in (DENIED_LOGINS, LAST_HOUR):
        events = page.objects(command)
        assert {event["action"] for event in events} == {"auth.login"}
        assert {event["status"] for event in events} == {"denied"}
        (ours,) = [event for event in events if event["http_request_id"] == request_id]
        assert ours["metadata"]["error_kind"] == kind
        assert PASSWORD not in str(ours)


def test_email_is_the_same_in_any_case(page: Installation) -> None:
    body = {"email": "DEV@Example.COM", "password": PASSWORD}
    assert log_in(page, body, "any-case").status_code == 200


def test_login_failures_older_than_an_hour_are_left_out(page: Installation) -> None:
    log_in(page, {"email": "old@example.com", "password": "x"}, "old")
    old = datetime.now(UTC) - timedelta(hours=2)
    with psycopg.connect(page.database, autocommit=True) as connection:
        # The trail refuses changes; a second event takes the place of an old one.
        connection.execute(
            "INSERT INTO audit_events (id, actor, action, resource, status, correlation_id,"
            " metadata, occurred_at) SELECT gen_random_uuid(), actor, action, resource, status,"
            ' gen_random_uuid(), \'{"error_kind": "older"}\', %s FROM audit_events'
            " WHERE http_request_id = 'old'",
            [old],
        )
    kinds = {event["metadata"]["error_kind"] for event in page.objects(DENIED_LOGINS)}
    assert "older" in kinds
    kinds = {event["metadata"]["error_kind"] for event in page.objects(LAST_HOUR)}
    assert "older" not in kinds
    assert "user_not_found" in kinds


# Agent job fails immediately


def test_failed_job_is_explained_in_the_agents_log(page: Installation) -> None:
    failed = page.approved("app/nothing", "PASSWORD", until_status="failed")
    told = until(lambda: log_of(page, "agent", msg="job completed", correlation_id=failed["id"]))
    assert [record["outcome"] for record in told] == ["failed"]
    assert told[0]["error"].startswith("vault: not_found: ")
    assert told[0]["error"] == failed["failure_reason"]
    assert told[0]["service"] == "secrets-bridge-agent"


def test_blank_provider_config_means_the_mount_named_secret(
    page: Installation, read: dict[str, Any]
) -> None:
    assert read["target_provider_config"] == {}
    assert {path for path in page.vault.paths("GET") if path.endswith("/app/db")} == {
        "secret/data/app/db"
    }


def test_debug_level_of_the_agent_says_more(page: Installation, read: dict[str, Any]) -> None:
    lines = log_of(page, "agent", level="DEBUG")
    assert [line for line in lines if line.get("correlation_id") == read["id"]]
    assert "p-value" not in page.processes["agent"].errors()


# "No wraps issued yet" after the agent ran


def test_wraps_are_the_requesters_alone(page: Installation, read: dict[str, Any]) -> None:
    path = f"/requests/{read['id']}/wraps"
    assert [wrap["key_name"] for wrap in page.people["dev"].get(path).json()] == ["PASSWORD"]
    assert page.people["approver"].get(path).status_code == 403


def test_chain_shows_the_wrap_or_why_there_is_none(
    page: Installation, read: dict[str, Any]
) -> None:
    found = page.objects(ONE_REQUEST.replace("<uuid>", read["id"]))
    assert all(set(event) == {"time", "actor", "action", "resource"} for event in found)
    assert found[-1]["action"] == "request.submit"
    assert {"request.approve", "job.claim", "wrap.create", "job.complete"} <= {
        event["action"] for event in found
    }
    failed = page.approved("app/nothing", "PASSWORD", until_status="failed")
    actions = {e["action"] for e in page.objects(ONE_REQUEST.replace("<uuid>", failed["id"]))}
    assert "wrap.create" not in actions
    assert "job.complete" in actions


def test_wrap_retrievals_show_who_saw_which_value_when(page: Installation) -> None:
    request_id = page.approved("app/db", "USER", until_status="executed")["id"]
    (wrap,) = page.people["dev"].get(f"/requests/{request_id}/wraps").json()
    me = page.people["dev"].get("/users/me").json()["id"]
    assert page.reveal(request_id) == {"USER": "u-value"}
    again = page.people["dev"].get(f"/requests/{request_id}/wraps/{wrap['id']}")
    assert again.status_code == 410
    ours = [e for e in page.objects(RETRIEVALS) if e["resource"] == f"wrap:{wrap['id']}"]
    assert [(event["actor"], event["status"]) for event in ours] == [
        (f"user:{me}", "denied"),
        (f"user:{me}", "success"),
    ]
    assert all(datetime.fromisoformat(event["time"]).tzinfo for event in ours)


# "Failed to load audit events"


def test_audit_events_are_an_array_for_admins_and_403_without_audit_read(
    page: Installation,
) -> None:
    ((*events,),) = page.objects(ALL_EVENTS)
    assert {"id", "actor", "action", "status", "occurred_at", "metadata"} <= set(events[0])
    token = page.people["guest"].headers["Authorization"].removeprefix("Bearer ")
    refused = page.bash(f"TOKEN={token}\n{ALL_EVENTS}")
    assert refused.returncode == 22
    assert "403" in refused.stderr
    answer = page.people["guest"].get("/audit-events").json()
    assert (answer["error"], answer["permission"]) == ("permission_denied", "audit.read")


# Agent stays "stale" forever


def test_stale_agent_is_active_again_after_a_heartbeat_with_the_right_secret(
    page: Installation,
) -> None:
    body = {"enrollment_token": enrolment_token(page), "agent_name": "silent"}
    made = httpx.post(f"{page.url}/api/v1/agents/enroll", json=body).json()
    who = {"AGENT": made["agent_id"], "SECRET": made["agent_token"]}

    def status() -> str:
        path = f"/admin/agents/{made['agent_id']}"
        return str(page.people["admin"].get(path).json()["status"])

    def beat(**more: str) -> str:
        return page.prints(f"cd {page.home}\n{HEARTBEAT}", **{**who, **more})

    assert page.prints("curl -fsS http://localhost:18080/healthz") == '{"status":"ok"}\n'
    assert beat().startswith("200")
    page.sql(
        "UPDATE agents SET last_seen_at = now() - interval '6 minutes' WHERE id = %s",
        made["agent_id"],
    )
    until(lambda: status() == "stale")

    refused = beat(SECRET="not-its-secret")
    assert refused.startswith("401")
    assert '"agent_auth_rejected"' in refused
    assert "secret" not in refused.lower().replace("not-its-secret", "")
    assert status() == "stale"
    query = "?action=agent.auth.rejected&limit=1"
    (event,) = page.people["admin"].get(f"/audit-events{query}").json()
    assert event["resource"] == f"agent:{made['agent_id']}"
    assert event["metadata"]["error_kind"] == "unauthorized"

    assert beat().startswith("200")
    assert status() == "active"


# Vault read returns "permission denied"


def test_path_that_the_agents_token_may_not_read_fails_with_permission_denied(
    page: Installation,
) -> None:
    failed = page.approved("app/closed", "PASSWORD", until_status="failed")
    assert failed["failure_reason"].startswith("vault: permission_denied: ")
    url = f"{page.vault.url}/v1/secret/data/app/closed"
    root = httpx.get(url, headers={"X-Vault-Token": page.vault.root.id})
    assert root.json()["data"]["data"] == {"PASSWORD": "closed-value"}


# Reading the metrics


def test_worker_metrics_are_the_pages(page: Installation) -> None:
    def swept() -> bool:
        runs = metrics(page.worker_port)["worker_scheduler_runs_total"]
        done = {
            run.labels["task"] for run in runs if run.labels["outcome"] == "success" and run.value
        }
        return done == TASKS

    until(swept)
    found = metrics(page.worker_port)
    runs = found["worker_scheduler_runs_total"]
    assert {(run.labels["task"], run.labels["outcome"]) for run in runs} == {
        (task, outcome) for task in TASKS for outcome in ("success", "failure", "skipped_lock")
    }
    assert all(set(run.labels) == {"task", "outcome"} for run in runs)
    for name in ("run_duration_seconds_bucket", "lock_skipped_total"):
        samples = found[f"worker_scheduler_{name}"]
        assert {sample.labels["task"] for sample in samples} == TASKS
    only = found["worker_scheduler_lock_skipped_total"]
    assert {sample.value for sample in only} == {0.0}, "one replica loses no election"


def test_api_exposes_metrics_too(page: Installation) -> None:
    assert "http_requests_total" in metrics(page.api_port)


# When in doubt


def test_request_id_of_an_answer_finds_its_line_in_the_apis_log(page: Installation) -> None:
    answer = page.people["guest"].get("/audit-events")
    request_id = answer.json()["request_id"]
    (line,) = until(lambda: log_of(page, "api", request_id=request_id, msg="request"))
    assert (line["status"], line["service"]) == (403, "secrets-bridge-api")
    assert line["route"] == "/api/v1/audit-events"


def test_logs_are_json_and_hold_no_value(page: Installation, read: dict[str, Any]) -> None:
    assert page.reveal(read["id"]) == {"PASSWORD": "p-value"}
    for name in ("api", "worker", "agent"):
        services = {record["service"] for record in page.processes[name].records()}
        assert services <= {f"secrets-bridge-{name}"}
        for value in ("p-value", "u-value", "closed-value", PASSWORD):
            assert value not in page.processes[name].errors()


@pytest.mark.parametrize("service", ["api", "agent", "postgres", "vault"])
def test_containers_of_the_page_are_services_of_the_compose_file(service: str) -> None:
    assert COMPOSE["name"] == "secrets-bridge"
    assert "container_name" not in COMPOSE["services"][service]


def test_commands_in_containers_find_what_they_name() -> None:
    services = COMPOSE["services"]
    postgres = services["postgres"]["environment"]
    # `psql -U secrets_bridge` opens the database of the same name.
    assert postgres["POSTGRES_USER"] == postgres["POSTGRES_DB"] == "secrets_bridge"
    assert "-dev-root-token-id=devroot" in services["vault"]["command"]
    assert "127.0.0.1:8200:8200" in services["vault"]["ports"]
    assert services["agent"]["environment"]["SB_VAULT_TOKEN"] == "${SB_VAULT_TOKEN:-devroot}"
    assert services["ingress"]["ports"] == [
        "${INGRESS_HOST_ADDRESS:-127.0.0.1}:${INGRESS_HOST_PORT:-18080}:8080"
    ]
    assert re.search(r"reverse_proxy .*api:8080", (ROOT / "deploy" / "Caddyfile").read_text())
