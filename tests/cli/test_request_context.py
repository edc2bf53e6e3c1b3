"""`sb request` tells whoever decides where a request reaches, and takes projects by their names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sb.cli.request_lines import summary
from tests.cli import running
from tests.cli.running import Dev, has_status
from tests.cli.test_request import ON_TERMINAL, TARGET, Done, Terminal, read_until, refused
from tests.cli.test_reveal import says

pytestmark = pytest.mark.xdist_group("cli-dev")

#: Development has a secret of its own.
IN_DEV = ("apps/billing/db-dev", *TARGET[1:])
PROD = ("--project", "billing", "--environment", "prod")
#: The dev mode's standard workflow takes a fortnight at the most.
LEFT = "expires in 13d"


@pytest.fixture
def terminal(dev: Dev, tmp_path: Path) -> Terminal:
    return Terminal(dev, tmp_path)


@dataclass(frozen=True)
class Newcomer:
    """Somebody with a temporary password and a role in one project alone."""

    terminal: Terminal
    email: str
    password: str

    def run(self, *words: str, **more: str) -> Done:
        dev, home = self.terminal.dev, self.terminal.home
        settings = {"SB_URL": dev.url, "SB_PASSWORD": self.password, **more}
        return running.sb(*words, "--as", self.email, home=home, environ=settings)


def newcomer(terminal: Terminal, email: str, *projects: str) -> Newcomer:
    with terminal.dev.person("admin") as admin:
        account = {"email": email, "display_name": "New Comer"}
        made = admin.post("/users", json=account).json()
        there = {project["name"]: project["id"] for project in admin.get("/projects").json()}
        roles = {role["name"]: role["id"] for role in admin.get("/roles").json()}
        for name in projects:
            grant = {
                "user_id": made["id"],
                "role_id": roles["developer"],
                "scope": {"project_id": there[name]},
            }
            assert admin.post("/user-roles", json=grant).status_code == 201
    return Newcomer(terminal, email, made["temporary_password"])


def settled(terminal: Terminal, email: str, *projects: str) -> Newcomer:
    """Return somebody who has a password of their own."""
    found = newcomer(terminal, email, *projects)
    done = found.run("password", SB_NEW_PASSWORD=f"own-password-of-{email}")
    assert (done.returncode, done.stderr) == (0, "")
    return Newcomer(terminal, email, f"own-password-of-{email}")


@pytest.fixture
def prod_read(terminal: Terminal) -> Iterator[str]:
    """The id of a pending request for production, cancelled afterwards."""
    found = terminal.json("developer", "read", *TARGET, "--key", "DB_USER", *PROD)
    yield str(found["id"])
    with terminal.dev.person("developer") as developer:
        developer.post(f"/requests/{found['id']}/cancel")


def test_show_tells_an_approver_that_it_is_production(terminal: Terminal, prod_read: str) -> None:
    where = f'\n  billing/prod, workflow "standard", {LEFT}\n'
    assert where in terminal.says("approver", "show", prod_read)
    request_id = terminal.says(
        "developer", "read", *IN_DEV, "--key", "DB_USER", "--project", "billing",
        "--environment", "dev",
    ).split()[0]  # fmt: skip
    where = f'\n  billing/dev (non_prod), workflow "standard", {LEFT}\n'
    assert where in terminal.says("approver", "show", request_id)
    terminal.says("developer", "cancel", request_id)
    ended = '\n  billing/dev (non_prod), workflow "standard"\n'
    assert ended in terminal.says("approver", "show", request_id)


def test_list_has_the_places_in_a_column(terminal: Terminal, prod_read: str) -> None:
    free = terminal.says("developer", "read", *TARGET, "--key", "DB_USER").split()[0]
    said = terminal.says("approver", "list", "--limit", "2").splitlines()
    assert [line.split()[0] for line in said] == [free, prod_read]
    what = "file:apps/billing/db [DB_USER]  by Dana Developer"
    assert said[0].endswith(f"  pending   read  no project    {what}")
    assert said[1].endswith(f"  pending   read  billing/prod  {what}")
    terminal.says("developer", "cancel", free)


def test_list_says_overdue_of_what_nobody_can_decide_any_more(
    terminal: Terminal, prod_read: str
) -> None:
    found = terminal.json("approver", "show", prod_read)
    assert found["overdue"] is False
    assert "  pending   read  " in summary(found)
    assert "  overdue   read  " in summary({**found, "overdue": True})


def test_list_of_what_needs_my_decision_leaves_out_what_i_voted_on(
    terminal: Terminal, prod_read: str
) -> None:
    def queue(role: str) -> list[str]:
        said = terminal.says(role, "list", "--needs-my-decision", "--limit", "200")
        return [line.split()[0] for line in said.splitlines()]

    assert prod_read in queue("approver")
    assert prod_read not in queue("developer")
    terminal.says("approver", "reject", prod_read, "--reason", "no")
    assert prod_read not in queue("approver")


def test_show_tells_who_voted_and_that_the_values_were_revealed(terminal: Terminal) -> None:
    two = ("--key", "DB_USER", "--key", "DB_PASSWORD")
    request_id = terminal.says("developer", "read", *TARGET, *two).split()[0]
    terminal.says("approver", "approve", request_id, "--comment", "on call")
    with terminal.dev.person("developer") as developer:
        has_status(developer, request_id, "executed")
    said = terminal.says("developer", "show", request_id)
    assert "\n  approved by Ari Approver: on call\n" in said
    assert "revealed" not in said
    terminal.says("developer", "reveal", request_id, "--key", "DB_USER")
    assert "\n  revealed already: DB_USER\n" in terminal.says("developer", "show", request_id)
    terminal.says("developer", "reveal", request_id)
    assert "\n  its values were revealed\n" in terminal.says("developer", "show", request_id)
    assert "revealed" not in terminal.says("approver", "show", request_id)


@pytest.fixture
def two_approve(terminal: Terminal) -> Iterator[None]:
    """A rule by which reads in billing need two, as long as the test lasts."""
    with terminal.dev.person("admin") as admin:
        (project,) = [one for one in admin.get("/projects").json() if one["name"] == "billing"]
        workflow = {"name": "pair of votes", "min_approvers": 2}
        workflow_id = admin.post("/workflows", json=workflow).json()["id"]
        selector = {"project_id": project["id"], "operation": "read"}
        rule = {"name": "pair", "selector": selector, "workflow_id": workflow_id, "priority": 900}
        rule_id = admin.post("/policies", json=rule).json()["id"]
        yield
        assert admin.delete(f"/policies/{rule_id}").status_code == 204


@pytest.mark.usefixtures("two_approve")
def test_show_tells_that_a_vote_does_not_count_any_more(terminal: Terminal) -> None:
    person = settled(terminal, "arno@example.com")
    request_id = terminal.says("developer", "read", *TARGET, "--key", "DB_USER", *PROD).split()[0]
    with terminal.dev.person("admin") as admin:
        (role,) = [one for one in admin.get("/roles").json() if one["name"] == "approver"]
        user_id = admin.get("/users?email=arno@example.com").json()[0]["id"]
        grant = {"user_id": user_id, "role_id": role["id"], "scope": {}}
        grant_id = admin.post("/user-roles", json=grant).json()["id"]
        done = person.run("request", "approve", request_id, "--comment", "go")
        assert "\n  1 of 2 approvals; " in done.stdout, done.stderr
        assert "\n  approved by New Comer: go\n" in terminal.says("approver", "show", request_id)
        assert admin.delete(f"/user-roles/{grant_id}").status_code == 204
    told = "\n  approved by New Comer (does not count any more): go\n"
    assert told in terminal.says("approver", "show", request_id)
    terminal.says("developer", "cancel", request_id)


def test_show_tells_that_an_approval_would_be_refused(terminal: Terminal) -> None:
    person = settled(terminal, "lea@example.com")
    with terminal.dev.person("admin") as admin:
        (role,) = [one for one in admin.get("/roles").json() if one["name"] == "developer"]
        user_id = admin.get("/users?email=lea@example.com").json()[0]["id"]
        grant = {"user_id": user_id, "role_id": role["id"], "scope": {}}
        assert admin.post("/user-roles", json=grant).status_code == 201
        done = person.run("request", "read", *TARGET, "--key", "DB_USER")
        request_id = done.stdout.split()[0]
        assert "cannot be approved" not in terminal.says("approver", "show", request_id)
        assert admin.post(f"/users/{user_id}/disable").status_code == 200
    told = terminal.says("approver", "show", request_id)
    assert "you may: reject\n  cannot be approved as things are now: requester_lost_right\n" in told
    terminal.says("approver", "reject", request_id, "--reason", "gone")


def test_show_of_a_single_value_that_was_revealed_says_so(terminal: Terminal) -> None:
    request_id = terminal.executed("DB_USER")
    terminal.says("developer", "reveal", request_id)
    assert "\n  its value was revealed\n" in terminal.says("developer", "show", request_id)


def test_read_without_a_key_says_that_it_asks_for_all(terminal: Terminal) -> None:
    said = terminal.says("developer", "read", *TARGET)
    assert said.endswith("\n  no --key was given: every key of the secret is asked for\n")
    terminal.says("developer", "cancel", said.split()[0])
    named = terminal.says("developer", "read", *TARGET, "--key", "DB_USER")
    assert "every key" not in named
    terminal.says("developer", "cancel", named.split()[0])
    assert "without any, every key" in " ".join(
        running.sb("request", "read", "--help", home=terminal.home).stdout.split()
    )


def test_project_that_is_missing_or_unknown_is_told_with_those_there_are(
    terminal: Terminal,
) -> None:
    person = settled(terminal, "nia@example.com", "billing")
    for key in ((), ("--key", "DB_USER")):
        done = person.run("request", "read", *TARGET, *key)
        told = "\n  name one with --project: billing\n"
        refused(done, "invalid_request: project_id is required. (request id ", told)
    done = person.run("request", "read", *TARGET, "--project", "attic")
    refused(done, "you may read no project 'attic': name one with --project: billing\n")
    done = person.run("request", "read", *TARGET, *PROD, "--key", "DB_USER")
    assert (done.returncode, done.stderr) == (0, "")
    with terminal.dev.person("admin") as admin:
        (project,) = [p for p in admin.get("/projects").json() if p["name"] == "billing"]
    by_id = ("--project", project["id"], "--environment", "dev", "--key", "DB_USER")
    assert "\n  billing/dev " in person.run("request", "read", *IN_DEV, *by_id).stdout


def test_secret_or_keys_that_are_not_there_are_to_be_checked(terminal: Terminal) -> None:
    rest = TARGET[1:]
    for target in (("not/there", *rest), (*TARGET, "--key", "NOT_THERE")):
        request_id = terminal.says("developer", "read", *target).split()[0]
        terminal.says("approver", "approve", request_id)
        with terminal.dev.person("developer") as developer:
            reason = has_status(developer, request_id, "failed")["failure_reason"]
        remedy = "There is nothing to reveal; check the path and the key names, then submit again"
        says(terminal, request_id, f"the request failed: {reason}. {remedy}")


def test_address_without_a_scheme_is_told(terminal: Terminal) -> None:
    bare = terminal.dev.url.removeprefix("http://")
    told = f"{bare} is no address of a server: write http:// or https:// before it\n"
    refused(terminal.run("developer", "list", "--url", bare), told)


def test_temporary_password_is_changed_in_the_terminal(terminal: Terminal) -> None:
    person = newcomer(terminal, "theo@example.com")
    done = person.run("request", "list")
    path = "POST /api/v1/users/me/password."
    refused(done, f"password_change_required: Change your password first, at {path} (request id ")
    refused(done, "\n  `sb password` does that\n")
    refused(person.run("password"), "there is no terminal to ask on: set SB_NEW_PASSWORD")
    refused(person.run("password", SB_NEW_PASSWORD="short"), "password_refused: ")
    done = person.run("password", SB_NEW_PASSWORD="a-password-of-his-own")
    told = "The password is changed; your other sessions have ended.\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, told, "")
    refused(person.run("request", "list"), "invalid_credentials: ")
    done = person.run("request", "list", SB_PASSWORD="a-password-of-his-own")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_new_password_typed_in_two_ways_changes_nothing(terminal: Terminal) -> None:
    person = newcomer(terminal, "tia@example.com")
    mine, theirs = os.openpty()
    words = [*running.SB[1:], "password", "--as", person.email]
    with subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, os.ttyname(theirs), *words],
        env=running.environment(terminal.home, SB_URL=terminal.dev.url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            shown = read_until(mine, f"Password of {person.email}: ")
            os.write(mine, f"{person.password}\n".encode())
            for question in ("New password: ", "The same again: "):
                shown += read_until(mine, question)
                os.write(mine, f"typed-after-{question}\n".encode())
            said, complaints = process.communicate(timeout=running.START_SECONDS)
        finally:
            process.kill()
    os.close(mine)
    os.close(theirs)
    told = "the two are not the same: nothing was changed\n"
    assert (process.returncode, said, complaints) == (1, "", told)
    assert "typed-after" not in shown + said
    refused(person.run("request", "list"), "password_change_required: ")
