"""`sb request reveal` says why there is nothing to reveal: not yet, not any more, or never."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Dev, has_status
from tests.cli.test_request import TARGET, Terminal, refused

pytestmark = pytest.mark.xdist_group("cli-dev")

NEVER = "nothing was read and nothing will be"


@pytest.fixture
def terminal(dev: Dev, tmp_path: Path) -> Terminal:
    return Terminal(dev, tmp_path)


def pending(terminal: Terminal) -> str:
    with terminal.dev.person("developer") as developer:
        sample = terminal.dev.announced["sample"]
        return str(developer.post("/requests/read", json=sample).json()["id"])


def says(terminal: Terminal, request_id: str, sentence: str, *more: str) -> None:
    done = terminal.run("developer", "reveal", request_id, *more)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{sentence}\n")


def set_end(terminal: Terminal, request_id: str, status: str, reason: str) -> None:
    """Leave the request as a sweep, or an agent's report, would."""
    statement = "UPDATE access_requests SET status = ?, failure_reason = ? WHERE id = ?"
    with sqlite3.connect(terminal.dev.data / "secrets-bridge.db", timeout=20) as connection:
        assert connection.execute(statement, (status, reason, request_id)).rowcount == 1
    connection.close()


def test_pending_request_has_nothing_yet(terminal: Terminal) -> None:
    told = "the request is pending with 0 of 1 approvals: there is nothing to reveal yet"
    says(terminal, pending(terminal), told)


def test_cancelled_request_never_has_anything(terminal: Terminal) -> None:
    request_id = pending(terminal)
    terminal.says("developer", "cancel", request_id)
    says(terminal, request_id, f"the request was cancelled: {NEVER}")


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        ("expired", "request_ttl", f"the request expired before it was decided: {NEVER}; submit"),
        ("expired", "job_ttl", f"the request expired before an agent could do it: {NEVER}; submit"),
        ("failed", "file: not_found: gone", "the request failed: file: not_found: gone. There is"),
        ("failed", "file: throttled: later", "There is nothing to reveal; submit it again\n"),
    ],
)
def test_request_that_came_to_nothing_says_why(
    terminal: Terminal, status: str, reason: str, told: str
) -> None:
    request_id = pending(terminal)
    set_end(terminal, request_id, status, reason)
    refused(terminal.run("developer", "reveal", request_id), told)


def test_failed_job_tells_the_agents_reason(terminal: Terminal) -> None:
    body: dict[str, Any] = {**terminal.dev.announced["sample"], "target_secret_ref": "not/there"}
    with terminal.dev.person("developer") as developer, terminal.dev.person("approver") as approver:
        request_id = developer.post("/requests/read", json=body).json()["id"]
        approver.post(f"/requests/{request_id}/approve", json={})
        reason = has_status(developer, request_id, "failed")["failure_reason"]
    assert reason
    refused(terminal.run("developer", "reveal", request_id), f"the request failed: {reason}. ")


def test_patch_never_has_anything(terminal: Terminal) -> None:
    patch = terminal.json("developer", "patch", *TARGET, "--key", "DB_SPARE=x")
    told = "the request is a patch: it writes values and has none to reveal"
    says(terminal, patch["id"], told)
    terminal.says("approver", "approve", patch["id"])
    with terminal.dev.person("developer") as developer:
        has_status(developer, patch["id"], "executed")
    says(terminal, patch["id"], told)


def test_unknown_key_is_named_with_those_there_are_and_spends_nothing(terminal: Terminal) -> None:
    request_id = terminal.executed("DB_PASSWORD", "DB_USER")
    told = "the request has no value of NOPE; it has DB_PASSWORD, DB_USER. Nothing was revealed."
    says(terminal, request_id, told, "--key", "DB_USER", "--key", "NOPE")
    assert terminal.json("developer", "reveal", request_id).keys() == {"DB_PASSWORD", "DB_USER"}
    again = terminal.run("developer", "reveal", request_id)
    refused(again, "wrap_already_consumed: The value was revealed already.")


def test_values_that_were_swept_are_gone(terminal: Terminal) -> None:
    request_id = terminal.executed("DB_USER")
    with sqlite3.connect(terminal.dev.data / "secrets-bridge.db", timeout=20) as connection:
        connection.execute("DELETE FROM secret_wraps WHERE request_id = ?", (request_id,))
    connection.close()
    told = "the values are gone: they were revealed or have expired. Submit the request again."
    says(terminal, request_id, told)


def test_stranger_is_told_that_it_is_not_theirs_whatever_became_of_it(terminal: Terminal) -> None:
    request_id = pending(terminal)
    refused(terminal.run("approver", "reveal", request_id), "not_the_requester: ")
