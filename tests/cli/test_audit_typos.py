"""A slip of the pen never reads as if nothing had happened: what psql says to wrong variables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sb.ops import accounts, projects
from tests import servers
from tests.cli.audit_files import (
    FILES,
    FOLDER,
    declared,
    example,
    former,
    given,
    optional,
    psql,
    refused,
)
from tests.cli.governed import Governed
from tests.cli.trail import new_name
from tests.conftest import TEMPLATE

pytestmark = pytest.mark.xdist_group("cli-audit")

SINCE = "2026-01-01T00:00:00Z"
SOME_ID = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
#: What measures: any value of its form has an answer, if only an empty one.
MEASURES = {"since": SINCE, "at": SINCE, "silent_for": "5 minutes", "days": "90"}
#: What names something, by any text, and what the file calls it.
NAMED = {"person": "person", "project": "project", "rule": "rule", "workflow": "workflow"}
#: The same by nothing but an id.
IDENTIFIED = {"request_id": "request"}
THINGS = NAMED | IDENTIFIED
NOTHING = dict.fromkeys(THINGS, SOME_ID)
QUOTE = 'it\'s "so"; DELETE FROM sessions; --'

ASKED = [(path, name) for path in FILES for name in sorted(declared(path))]
NEEDED = [(path, name) for path, name in ASKED if name not in optional(path)]
NAMES = [(path, name) for path, name in ASKED if name in NAMED]
IDS = [(path, name) for path, name in ASKED if name in IDENTIFIED]
FORMER = [(path, name) for path in FILES for name in sorted(former(path))]


def _id(value: object) -> str:
    return value.stem if isinstance(value, Path) else str(value)


def _variables(path: Path) -> dict[str, str]:
    return {name: (MEASURES | NOTHING)[name] for name in declared(path)}


@pytest.fixture(scope="module")
def url(postgres_server: servers.PostgresServer) -> Iterator[str]:
    name = new_name()
    postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield postgres_server.url(name)
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("path", FILES, ids=_id)
def test_head_of_the_file_names_its_variables_and_how_to_run_it(path: Path) -> None:
    text = path.read_text()
    assert example(path).endswith(f" -f sql/audit/{path.name}")
    used = set(re.findall(r":'(\w+)'", text))
    assert declared(path).keys() == used == set(re.findall(r"-v (\w+)=", example(path)))
    looked_for = set(re.findall(r"^\\if :\{\?(\w+)\}", text, re.MULTILINE))
    assert looked_for == used | former(path)
    assert used <= MEASURES.keys() | THINGS.keys()


@pytest.mark.parametrize(("path", "variable"), NEEDED, ids=_id)
def test_file_without_its_variable_says_which_and_how_to_run_it(
    url: str, path: Path, variable: str
) -> None:
    others = {name: text for name, text in _variables(path).items() if name != variable}
    done = psql(url, *given(others), "-f", str(path))
    assert (done.returncode, done.stdout) == (3, "")
    first, second = done.stderr.splitlines()
    assert first.endswith(f" ERROR:  {variable} is missing ({declared(path)[variable]})")
    assert second == f"HINT:  {example(path)}"


@pytest.mark.parametrize(("path", "variable"), ASKED, ids=_id)
def test_file_asked_for_what_never_was_says_so(url: str, path: Path, variable: str) -> None:
    variables = _variables(path)
    if variable in THINGS:
        refusal = f"ERROR:  no such {THINGS[variable]}: {SOME_ID}"
        assert refused(url, path.stem, **variables)[0] == refusal
    else:
        variables[variable] = QUOTE
        assert "invalid input syntax" in refused(url, path.stem, **variables)[0]


@pytest.mark.parametrize(("path", "name"), [*NAMES, *FORMER], ids=_id)
def test_file_takes_any_text_for_a_name_as_it_is(url: str, path: Path, name: str) -> None:
    now_called = name.removesuffix("_id")
    variables = _variables(path)
    del variables[now_called]
    lines = refused(url, path.stem, **variables, **{name: QUOTE})
    assert lines[0] == f"ERROR:  no such {NAMED[now_called]}: {QUOTE}"


@pytest.mark.parametrize(("path", "name"), IDS, ids=_id)
def test_file_refuses_a_text_that_is_no_id(url: str, path: Path, name: str) -> None:
    lines = refused(url, path.stem, **{**_variables(path), name: QUOTE})
    assert "invalid input syntax for type uuid" in lines[0]


def test_file_through_standard_input_refuses_as_well(url: str) -> None:
    path = FOLDER / "rule_changes.sql"
    for variables, refusal in (({}, "rule is missing"), ({"rule": "x"}, "no such rule: x")):
        done = psql(url, *given(variables), stdin=path.read_text())
        assert done.returncode == 3
        assert done.stderr.startswith(f"ERROR:  {refusal}")


def test_grants_of_person_at_tell_whose_an_address_was_at_another_time(
    governed: Governed,
) -> None:
    ann = governed.person("ann")
    for days, email in ((-20, "second@example.com"), (-10, "third@example.com")):
        governed.run(
            accounts.update,
            by=governed.caller(),
            user_id=ann,
            email=email,
            display_name=None,
            now=governed.at(days),
        )
    asked = {"person": "Second@example.com", "at": governed.at(-5).isoformat()}
    assert refused(governed.url, "grants_of_person_at", **asked) == [
        "ERROR:  no such person: Second@example.com",
        "HINT:  At another time this was the address of third@example.com.",
    ]
    asked["person"] = "nobody@example.com"
    assert refused(governed.url, "grants_of_person_at", **asked) == [
        "ERROR:  no such person: nobody@example.com",
        "HINT:  Nobody has or ever had this id or address.",
    ]


def test_project_approvers_tell_what_a_project_was_called_and_when_it_was_made(
    governed: Governed,
) -> None:
    project_id = governed.project("ledger")
    governed.run(
        projects.rename,
        caller=governed.caller(),
        project_id=project_id,
        name="books",
        now=governed.at(-10),
    )
    assert refused(governed.url, "project_approvers", project="ledger") == [
        "ERROR:  no such project: ledger",
        "HINT:  At another time this was the name of books.",
    ]
    asked = {"at": governed.at(-500).isoformat()}
    for name in ("books", project_id.upper()):
        first, second = refused(governed.url, "project_approvers", project=name, **asked)
        assert first == f"ERROR:  no such project: {name}"
        assert second.startswith("HINT:  It was made later, at ")
    assert refused(governed.url, "project_approvers", project="shop") == [
        "ERROR:  no such project: shop",
        "HINT:  No project has or ever had this id or name.",
    ]
