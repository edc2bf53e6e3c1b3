"""`sb request` in a terminal: the main job step by step, and what is said when one is refused."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli import running
from tests.cli.running import Dev, has_status
from tests.servers import free_port

pytestmark = pytest.mark.xdist_group("cli-dev")

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
TARGET = ("apps/billing/db", "--provider", "file", "--justification", "ticket 4711")

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Terminal:
    """Where people type: with the address of the server and their password in the environment."""

    dev: Dev
    home: Path

    def run(self, role: str, verb: str, *arguments: str, **more: str) -> Done:
        settings = {"SB_URL": self.dev.url, "SB_PASSWORD": self.dev.passwords[role], **more}
        words = ("request", verb, *arguments, "--as", f"{role}@example.com")
        return running.sb(*words, home=self.home, environ=settings)

    def says(self, role: str, verb: str, *arguments: str) -> str:
        """Return what the command prints; it succeeds and has nothing else to say."""
        done = self.run(role, verb, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def json(self, role: str, verb: str, *arguments: str) -> Any:
        return json.loads(self.says(role, verb, *arguments, "--json"))

    def executed(self, *keys: str) -> str:
        """Return the id of a request for these keys that an agent has done, made over HTTP."""
        body = {**self.dev.announced["sample"], "target_keys": list(keys)}
        with self.dev.person("developer") as developer, self.dev.person("approver") as approver:
            request_id = str(developer.post("/requests/read", json=body).json()["id"])
            approver.post(f"/requests/{request_id}/approve", json={})
            has_status(developer, request_id, "executed")
        return request_id


@pytest.fixture
def terminal(dev: Dev, tmp_path: Path) -> Terminal:
    return Terminal(dev, tmp_path)


def refused(done: Done, *told: str, status: int = 1) -> None:
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for each in told:
        assert each in done.stderr


def test_main_job_in_a_terminal(terminal: Terminal) -> None:
    said = terminal.says("developer", "read", *TARGET, "--key", "DB_PASSWORD")
    request_id, status, rest = said.split(maxsplit=2)
    what = "read  file:apps/billing/db [DB_PASSWORD]  by Dana Developer"
    where = '  no project, workflow "standard"'
    left = f"{what}\n{where}, expires in 13d\n  0 of 1 approvals; you may: cancel\n"
    assert (status, rest) == ("pending", left)

    refused(terminal.run("developer", "approve", request_id), "self_approval_forbidden: ")

    said = terminal.says("approver", "approve", request_id, "--comment", "fine")
    assert said.startswith(f"{request_id}  approved  {what}\n{where}, to be done in ")
    assert said.endswith("\n  1 of 1 approvals; you may: nothing\n")
    with terminal.dev.person("developer") as developer:
        votes = has_status(developer, request_id, "executed")["approvals"]
    assert [vote["comment"] for vote in votes] == ["fine"]

    said = terminal.says("developer", "show", request_id)
    votes_line = "  1 of 1 approvals; you may: reveal\n  approved by Ari Approver: fine\n"
    reason = "  because: ticket 4711\n"
    assert said == f"{request_id}  executed  {what}\n{where}\n{votes_line}{reason}"
    listed = terminal.says("developer", "list")
    assert f"{request_id}  executed  read  no project " in listed

    revealed = terminal.says("developer", "reveal", request_id)
    assert revealed == "DB_PASSWORD=correct-horse-battery-staple\n"
    again = terminal.run("developer", "reveal", request_id)
    refused(again, "wrap_already_consumed: ", "(request id ")
    assert "correct-horse" not in again.stderr + terminal.dev.process.errors()


def test_patch_and_read_back_as_json(terminal: Terminal) -> None:
    keys = ("--key", "DB_HOST=new.internal", "--key", "DB_NOTE=a=b c")
    patch = terminal.json("developer", "patch", *TARGET, *keys)
    assert (patch["type"], patch["status"]) == ("patch", "pending")
    assert patch["target_keys"] == ["DB_HOST", "DB_NOTE"]
    assert "new.internal" not in json.dumps(patch)
    assert terminal.json("approver", "approve", patch["id"])["status"] == "approved"
    with terminal.dev.person("developer") as developer:
        has_status(developer, patch["id"], "executed")

    request_id = terminal.executed("DB_HOST", "DB_NOTE", "DB_USER")
    assert terminal.json("developer", "show", request_id)["allowed_actions"] == ["reveal"]
    listed = terminal.json("developer", "list", "--limit", "2", "--status", "executed")
    assert [found["id"] for found in listed] == [request_id, patch["id"]]
    one = terminal.json("developer", "reveal", request_id, "--key", "DB_NOTE")
    assert one == {"DB_NOTE": "a=b c"}
    two = terminal.says("developer", "reveal", request_id, "--key", "DB_USER", "--key", "DB_HOST")
    assert set(two.splitlines()) == {"DB_USER=billing", "DB_HOST=new.internal"}


def test_reject_takes_a_reason_and_shows_it(terminal: Terminal) -> None:
    sample = terminal.dev.announced["sample"]
    with terminal.dev.person("developer") as developer:
        request_id = developer.post("/requests/read", json=sample).json()["id"]
    refused(terminal.run("approver", "reject", request_id), "say why with --reason")
    said = terminal.says("approver", "reject", request_id, "--reason", "no ticket")
    assert said.startswith(f"{request_id}  rejected  read ")
    assert said.endswith("\n  reject reason: no ticket\n")
    late = terminal.run("approver", "approve", request_id)
    refused(late, "request_not_pending: ")
    never = "the request was rejected (no ticket): nothing was read and nothing will be\n"
    refused(terminal.run("developer", "reveal", request_id), never)


def test_reveal_as_json_loses_no_value_when_one_was_revealed_before(terminal: Terminal) -> None:
    request_id = terminal.executed("DB_PASSWORD", "DB_USER")
    assert terminal.says("developer", "reveal", request_id, "--key", "DB_USER")
    rest = terminal.run("developer", "reveal", request_id, "--json")
    assert json.loads(rest.stdout) == {"DB_PASSWORD": "correct-horse-battery-staple"}


def test_unknown_request_is_told(terminal: Terminal) -> None:
    refused(terminal.run("approver", "approve", MISSING), "request_not_found: ", "(request id ")


def test_field_that_is_not_valid_is_named(terminal: Terminal) -> None:
    done = terminal.run("developer", "list", "--status", "gone")
    refused(done, "invalid_request: ", "\n  status: ")


def test_wrong_password_is_told_and_not_repeated(terminal: Terminal) -> None:
    done = terminal.run("developer", "list", SB_PASSWORD="not-the-password")
    refused(done, "invalid_credentials: Invalid credentials. (request id ")
    assert "not-the-password" not in done.stderr


def test_session_token_of_the_environment_is_used(terminal: Terminal) -> None:
    with terminal.dev.person("approver") as approver:
        token = approver.headers["Authorization"].removeprefix("Bearer ")
        settings = {"SB_URL": terminal.dev.url, "SB_TOKEN": token}
        done = running.sb("request", "list", "--json", home=terminal.home, environ=settings)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == approver.get("/requests?limit=20").json()
    ended = {**settings, "SB_TOKEN": "a" * len(token)}
    done = running.sb("request", "list", home=terminal.home, environ=ended)
    refused(done, "authentication_required: ")


def test_nobody_is_told_to_say_who_they_are(terminal: Terminal) -> None:
    done = running.sb("request", "list", "--url", terminal.dev.url, home=terminal.home)
    refused(done, "say who you are with --as, or set SB_TOKEN")


def test_server_that_is_away_is_told(terminal: Terminal) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = terminal.run("developer", "show", MISSING, "--url", url)
    refused(done, f"{url} cannot be reached")


def test_wrong_usage_and_a_password_as_argument_are_refused_with_status_2(
    terminal: Terminal,
) -> None:
    done = terminal.run("developer", "read", *TARGET, "--password", "in-sight-of-everybody")
    refused(done, "unrecognized arguments: --password", status=2)
    without = terminal.run("developer", "read", "apps/billing/db")
    refused(without, "--justification", status=2)


def test_address_may_end_with_a_slash(terminal: Terminal) -> None:
    done = terminal.run("developer", "list", "--url", f"{terminal.dev.url}/")
    assert (done.returncode, done.stderr) == (0, "")


def test_password_that_cannot_be_asked_for_is_told(terminal: Terminal) -> None:
    done = terminal.run("developer", "list", SB_PASSWORD="")
    refused(done, "there is no terminal to ask on: set SB_PASSWORD, or SB_TOKEN ")
    assert done.stderr.count("\n") == 1, "nothing else is said"


def test_value_that_cannot_be_asked_for_is_told(terminal: Terminal) -> None:
    done = terminal.run("developer", "patch", *TARGET, "--key", "DB_TOKEN")
    told = "there is no terminal to ask on: give the value with --key DB_TOKEN=VALUE\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)


def test_missing_permission_is_named_with_where_to_get_it(terminal: Terminal) -> None:
    done = terminal.run("approver", "read", *TARGET, "--key", "DB_USER")
    refused(done, "permission_denied: ", "\n  you need secret.request at any scope: ", "sb apply")


#: Gives the command the terminal it asks people on; standard output and error stay pipes.
ON_TERMINAL = """
import os, sys
os.setsid()
os.open(sys.argv[1], os.O_RDWR)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def read_until(terminal: int, text: str) -> str:
    """Return what the terminal shows, up to and with the text."""
    shown = ""
    while text not in shown:
        assert select.select([terminal], [], [], running.START_SECONDS)[0], shown
        shown += os.read(terminal, 4096).decode()
    return shown


def test_password_and_new_value_are_asked_for_and_not_shown(terminal: Terminal) -> None:
    mine, theirs = os.openpty()
    words = ["request", "patch", *TARGET, "--key", "DB_TOKEN", "--as", "developer@example.com"]
    with subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, os.ttyname(theirs), *running.SB[1:], *words],
        env=running.environment(terminal.home, SB_URL=terminal.dev.url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            shown = read_until(mine, "Password of developer@example.com: ")
            os.write(mine, f"{terminal.dev.passwords['developer']}\n".encode())
            shown += read_until(mine, "New value of DB_TOKEN: ")
            os.write(mine, b"typed-and-not-shown\n")
            said, complaints = process.communicate(timeout=running.START_SECONDS)
        finally:
            process.kill()
    shown += read_until(mine, "\n")
    os.close(mine)
    os.close(theirs)
    assert (process.returncode, complaints) == (0, "")
    request_id = said.split()[0]
    assert "pending   patch file:apps/billing/db [DB_TOKEN]" in said
    for hidden in (terminal.dev.passwords["developer"], "typed-and-not-shown"):
        assert hidden not in shown + said

    with terminal.dev.person("developer") as developer, terminal.dev.person("approver") as approver:
        approver.post(f"/requests/{request_id}/approve", json={})
        has_status(developer, request_id, "executed")
    assert terminal.json("developer", "reveal", terminal.executed("DB_TOKEN")) == {
        "DB_TOKEN": "typed-and-not-shown"
    }
