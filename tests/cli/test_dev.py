"""Dev mode as a process: what it prints, how it ends, what it keeps, and the demo against it."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.running import Dev, has_status, sb, started, until
from tests.cli.running import dev as running_dev
from tests.servers import free_port

pytestmark = pytest.mark.xdist_group("cli-dev")

VALUES = {"DB_USER": "billing", "DB_PASSWORD": "correct-horse-battery-staple"}
TASKS = (
    "wraps-expired",
    "requests-expired",
    "jobs-recovery",
    "agents-stale",
    "idempotency-expired",
    "sessions-purge",
    "enrollment-tokens-expired",
)


def submit(dev: Dev) -> str:
    with dev.person("developer") as developer:
        answer = developer.post("/requests/read", json=dev.announced["sample"])
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def approve(dev: Dev, request_id: str) -> None:
    with dev.person("approver") as approver:
        answer = approver.post(f"/requests/{request_id}/approve", json={})
    assert answer.status_code == 200, answer.text


def reveal(dev: Dev, request_id: str) -> dict[str, str]:
    with dev.person("developer") as developer:
        has_status(developer, request_id, "executed")
        path = f"/requests/{request_id}/wraps"
        wraps = developer.get(path).json()
        answers = {wrap["key_name"]: developer.get(f"{path}/{wrap['id']}") for wrap in wraps}
    assert {answer.status_code for answer in answers.values()} == {200}
    return {name: _decoded(answer) for name, answer in answers.items()}


def _decoded(answer: httpx.Response) -> str:
    return base64.b64decode(answer.json()["value"]).decode()


def refused(done: subprocess.CompletedProcess[str], status: int, *told: str) -> None:
    """The command ended with the status and says why, in words for people."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for each in told:
        assert each in done.stderr


def samples(url: str) -> dict[str, list[Any]]:
    text = httpx.get(f"{url}/metrics").text
    found: dict[str, list[Any]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def test_json_line_says_where_it_is_and_who_may_sign_in(dev: Dev) -> None:
    found = dev.announced
    assert set(found) == {"url", "users", "sample"}
    assert found["url"].startswith("http://127.0.0.1:")
    assert [user["roles"] for user in found["users"]] == [["admin"], ["approver"], ["developer"]]
    for user in found["users"]:
        assert set(user) == {"email", "password", "roles"}
    sample = found["sample"]
    assert sample["target_provider_type"] == "file"
    assert sample["target_secret_ref"] == "apps/billing/db"
    assert set(sample["target_keys"]) == set(VALUES)


def test_log_goes_to_standard_error_as_json(dev: Dev) -> None:
    records = dev.process.records()
    assert records
    assert {record["service"] for record in records} == {"secrets-bridge-dev"}
    assert all({"time", "level", "msg"} <= set(record) for record in records)


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("admin", {"secret.request", "secret.approve", "audit.read", "agent.mint"}, set()),
        ("approver", {"secret.approve", "audit.read"}, {"agent.mint"}),
        ("developer", {"secret.request"}, {"secret.approve", "agent.mint"}),
    ],
)
def test_sample_users_sign_in_with_their_role(
    dev: Dev, role: str, may: set[str], may_not: set[str]
) -> None:
    with dev.person(role) as person:
        permissions = set(person.get("/users/me").json()["permissions"])
    assert may <= permissions
    assert not may_not & permissions


def test_sample_is_requested_approved_and_revealed(dev: Dev) -> None:
    request_id = submit(dev)
    approve(dev, request_id)
    assert reveal(dev, request_id) == VALUES
    with dev.person("approver") as approver:
        events = approver.get("/audit-events", params={"correlation_id": request_id}).json()
    story = [(event["action"], event["status"]) for event in events]
    assert story.count(("wrap.retrieve", "success")) == len(VALUES)
    assert {"job.claim", "wrap.create", "job.complete"} <= {action for action, _ in story}
    assert not any(value in dev.process.errors() for value in VALUES.values() if "-" in value)


def test_metrics_are_those_of_all_three_processes(dev: Dev) -> None:
    def swept() -> bool:
        runs = samples(dev.url)["worker_scheduler_runs_total"]
        done = {run.labels["task"]: run.value for run in runs if run.labels["outcome"] == "success"}
        return set(done) == set(TASKS) and min(done.values()) >= 1

    until(swept)
    found = samples(dev.url)
    assert found["schema_version"][0].value >= 1
    routes = {sample.labels["route"] for sample in found["http_requests_total"]}
    assert "/api/v1/auth/login" in routes
    runs = found["worker_scheduler_runs_total"]
    assert {run.labels["outcome"] for run in runs} == {"success", "failure", "skipped_lock"}
    assert {"worker_scheduler_run_duration_seconds_count", "wraps_live"} <= set(found)
    assert {"agent_jobs_in_flight", "agent_last_heartbeat_timestamp_seconds"} <= set(found)


def test_dev_mode_listens_on_the_loopback_address_only(dev: Dev) -> None:
    connections = psutil.Process(dev.process.popen.pid).net_connections("inet")
    listening = [found.laddr for found in connections if found.status == psutil.CONN_LISTEN]
    assert listening == [("127.0.0.1", httpx.URL(dev.url).port)]


def test_files_of_dev_mode_are_its_owners_alone(dev: Dev) -> None:
    secret = ["master.key", "agent/identity.json", "agent/agent.key", "agent/secrets.enc.key"]
    assert {path: (dev.data / path).stat().st_mode & 0o777 for path in secret} == dict.fromkeys(
        secret, 0o600
    )
    assert dev.data.stat().st_mode & 0o777 == 0o700


def test_second_start_finds_everything_and_no_stuck_request_holds_up_the_end(
    tmp_path: Path,
) -> None:
    data = tmp_path / "deep" / "data"
    with running_dev(tmp_path, data, free_port()) as first:
        kept = submit(first)
        approve(first, kept)
        with first.person("developer") as developer:
            has_status(developer, kept, "executed")
        waiting = submit(first)
        first.process.signal(signal.SIGINT)
        assert first.process.end() == (0, "")
    assert "Traceback" not in first.process.errors()

    with running_dev(tmp_path, data, free_port()) as second:
        assert reveal(second, kept) == VALUES
        approve(second, waiting)
        assert reveal(second, waiting) == VALUES
        with second.person("admin") as admin:
            assert [agent["status"] for agent in admin.get("/agents").json()] == ["active"]
            assert len(admin.get("/provider-connections").json()) == 1
        with stuck(httpx.URL(second.url).port or 0):
            second.process.signal(signal.SIGTERM)
            assert second.process.end() == (0, "")


def stuck(port: int) -> socket.socket:
    """Return a connection whose request is under way and whose body never comes."""
    found = socket.create_connection(("127.0.0.1", port), timeout=10)
    found.sendall(b"POST /api/v1/auth/login HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue")
    found.sendall(b"\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n")
    assert b" 100 " in found.recv(1000)
    found.sendall(b"{")
    return found


def test_people_read_what_they_can_do_and_a_second_signal_insists(tmp_path: Path) -> None:
    port = free_port()
    arguments = ("dev", "--port", str(port), "--data-dir", str(tmp_path / "data"))
    with started(*arguments, home=tmp_path) as process:
        said = process.line()
        while "Ctrl-C" not in said:
            said += process.line()
        with stuck(port):
            process.signal(signal.SIGINT)
            until(lambda: _is_closed(port))
            process.signal(signal.SIGINT)
            assert process.end()[0] == 130
    assert f"Secrets Bridge is running at http://127.0.0.1:{port} " in said
    assert "approver@example.com     dev-approver-password    approver\n" in said
    assert process.errors() == ""


def _is_closed(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_second_process_on_the_same_data_is_refused(dev: Dev, tmp_path: Path) -> None:
    port = str(free_port())
    done = sb("dev", "--json", "--port", port, "--data-dir", str(dev.data), home=tmp_path)
    refused(done, 1, f"another `sb dev`, uses {dev.data}: ", "--data-dir", "--port")
    assert httpx.get(f"{dev.url}/healthz").json() == {"status": "ok"}


def test_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = sb("dev", "--json", "--port", port, "--data-dir", str(tmp_path / "d"), home=tmp_path)
    refused(done, 1, f"cannot listen on 127.0.0.1:{port} (", "in use", "with --port\n")


def test_wrong_usage_is_told_with_status_2(tmp_path: Path) -> None:
    refused(sb("dev", "--port", "many", home=tmp_path), 2, "--port", "many")


def test_data_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = sb("dev", "--data-dir", str(tmp_path / "file" / "data"), home=tmp_path)
    refused(done, 1, str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("options", "settings"),
    [(["--port", "70000"], {"SB_RATE_LOGIN": "many"}), ([], {"SB_WORKER_SWEEP_BATCH_SIZE": "0"})],
)
def test_unusable_settings_are_told(
    tmp_path: Path, options: list[str], settings: dict[str, str]
) -> None:
    data = str(tmp_path / "data")
    done = sb("dev", "--data-dir", data, *options, home=tmp_path, environ=settings)
    refused(done, 1, *settings)


def check_demo(printed: str) -> None:
    """Every step of the main job is there, the values, and both audit chains."""
    lines = printed.splitlines()
    for step in (
        "sign in as developer@example.com",
        "sign in as approver@example.com",
        "submit read",
        "approving one's own request is refused",
        "approve as somebody else",
        "the agent did the job",
        "reveal DB_PASSWORD once",
        "reveal DB_USER once",
        "a second reveal of the same value is refused (410)",
        "submit requests",
        "the new value reads back as it was written",
    ):
        assert f"  ok  {step}" in lines
    assert "     DB_PASSWORD = correct-horse-battery-staple" in lines
    told = [tuple(line.split()[1:4]) for line in lines if line.startswith("      ")]
    end = next(n for n, event in enumerate(told) if event[:2] == ("wrap.retrieve", "denied")) + 1
    read, patch = told[:end], told[end:]
    assert read[0] == ("request.submit", "success", "developer@example.com")
    assert ("request.approve", "denied", "developer@example.com") in read
    assert ("request.approve", "success", "approver@example.com") in read
    retrievals = ("success", "success", "denied")
    assert read[-3:] == [("wrap.retrieve", each, "developer@example.com") for each in retrievals]
    assert ("wrap.retrieve", "success", "Agent") in patch
    assert lines[-1] == "Everything answered as it should."


def test_demo_alone_starts_plays_and_stops(tmp_path: Path) -> None:
    port = free_port()
    data = str(tmp_path / "data")
    done = sb("dev", "--demo", "--port", str(port), "--data-dir", data, home=tmp_path)
    assert done.returncode == 0, done.stderr
    check_demo(done.stdout)
    assert done.stderr == ""
    assert _is_closed(port)


def test_demo_against_a_running_server_leaves_it_running(dev: Dev, tmp_path: Path) -> None:
    port = str(httpx.URL(dev.url).port)
    with dev.person("developer") as developer:
        before = len(developer.get("/requests?limit=200").json())
        done = sb("dev", "--demo", "--port", port, home=tmp_path)
        assert done.returncode == 0, done.stderr
        check_demo(done.stdout)
        assert len(developer.get("/requests?limit=200").json()) == before + 3
    assert not (tmp_path / ".local").exists()


def test_demo_with_json_prints_the_line_alone_on_standard_output(dev: Dev, tmp_path: Path) -> None:
    port = str(httpx.URL(dev.url).port)
    done = sb("dev", "--demo", "--json", "--port", port, home=tmp_path)
    assert done.returncode == 0
    check_demo(done.stderr)
    assert json.loads(done.stdout)["url"] == dev.url


def test_demo_ends_with_an_error_when_a_step_goes_wrong(dev: Dev, tmp_path: Path) -> None:
    port = str(httpx.URL(dev.url).port)
    old, new = dev.passwords["approver"], "another-password-for-ari"
    with dev.person("approver") as approver:
        path = "/users/me/password"
        changed = approver.post(path, json={"current_password": old, "new_password": new})
        assert changed.status_code == 204
        try:
            done = sb("dev", "--demo", "--port", port, home=tmp_path)
        finally:
            back = approver.post(path, json={"current_password": new, "new_password": old})
        assert back.status_code == 204
    assert done.returncode == 1
    assert done.stderr == (
        "the demo failed: sign in as approver@example.com: expected 200, got 401\n"
    )
    assert "sign in as developer@example.com" in done.stdout
    assert "Everything answered" not in done.stdout
