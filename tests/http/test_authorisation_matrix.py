"""Who gets what from every route, called as everybody inside and outside their scope."""

from __future__ import annotations

import difflib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trio

from sb.http.declare import Agent, Public
from tests import stack
from tests.http.matrix_calls import (
    CALLS,
    DECLARED,
    Row,
    cells_of,
    line,
    lines_of,
    measure,
    page,
    route_of,
    served,
    shown_as,
)
from tests.http.matrix_notes import NOTES
from tests.http.matrix_world import PERSONAS, SIDES, Persona
from tests.stack import Stack

GOLDEN = Path(__file__).parents[1] / "golden" / "authorisation.txt"
#: Routes that nobody gets a 2xx from here, with the reason.
NEVER: Mapping[str, str] = {}
#: Rows that between them show every kind of answer, called on both databases.
SAMPLE = (
    "GET /projects",
    "POST /user-roles",
    "PUT /teams/<id:team_id> | to the other side",
    "POST /projects/<id:project_id>/secrets | the other side's, by place",
    "PUT /projects/<id:project_id>/policy-rules/<id:rule_id> | the other side's",
    "POST /requests/read",
    "POST /requests/<id:request_id>/approve",
    "GET /requests/<id:request_id>/wraps/<id:wrap_id> | own",
    "POST /agents/<id:agent_id>/jobs/claim | own path",
    "POST /agents/<id:agent_id>/wraps | own path, the lease that holds it",
)


def test_every_route_answers_everybody_as_published(
    sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """To change it on purpose: `python -m tests.http.test_authorisation_matrix` writes it anew."""
    for talkative in ("httpcore", "httpx", "sb.access"):
        # The records of three thousand calls would bury the lines that differ.
        caplog.set_level(logging.WARNING, logger=talkative)
    now = page(trio.run(_measured, sqlite_url, tmp_path)).splitlines()
    published = GOLDEN.read_text().splitlines()
    difference = "\n".join(difflib.unified_diff(published, now, "published", "now", n=1))
    assert not difference, f"who may do what has changed:\n{difference}"


async def test_both_databases_answer_alike(plane: Stack) -> None:
    published = lines_of(GOLDEN.read_text())
    rows = {shown_as(row.name): line(row) for row in await measure(plane, SAMPLE)}
    assert rows == {name: published[name] for name in rows}


def test_every_route_has_a_row() -> None:
    missing = sorted(served() - {route_of(name) for name in CALLS})
    assert not missing, (
        f'no row for {missing}: add `"{missing[0]}": lambda at: go(...)`, a call that is valid for '
        "whoever may make it, to a table in tests/http/matrix_people.py, matrix_tenancy.py or "
        "matrix_work.py, run `python -m tests.http.test_authorisation_matrix`, and read the line"
    )


def test_no_row_is_about_what_is_gone() -> None:
    gone = sorted(name for name in CALLS if route_of(name) not in served())
    assert not gone, f"take these out of tests/http/matrix_*.py: {gone}"
    assert NOTES.keys() <= CALLS.keys()
    assert lines_of(GOLDEN.read_text()).keys() == {shown_as(name) for name in CALLS}


def test_every_route_succeeds_for_somebody() -> None:
    """Otherwise a bad call would pass for a forbidden one."""
    lines = lines_of(GOLDEN.read_text())
    happy = {
        route_of(name)
        for name in CALLS
        if any(cell.startswith("2") for cell in cells_of(lines[shown_as(name)]).values())
    }
    assert {route_of(name) for name in CALLS} - happy == NEVER.keys()


def test_only_a_credential_of_its_kind_opens_a_route() -> None:
    """Sessions open what people call, an agent's secret what that agent calls, and no more."""
    for name, persona, side, cell in _published():
        declared = DECLARED.get(route_of(name))
        if declared is None or isinstance(declared.access, Public):
            continue
        at_home = persona.at_home == side or "own path" in name
        fits = (
            persona.at_home is not None and at_home
            if isinstance(declared.access, Agent)
            else persona.is_person
        )
        assert fits == (not cell.startswith("401")), (name, persona.name, side, cell)


def test_what_scoped_people_get_outside_their_scope_is_explained() -> None:
    explained = {name for name in CALLS if name in NOTES or route_of(name) not in DECLARED}
    for name, persona, side, cell in _published():
        got_in = cell.startswith("2") and not cell.endswith("-")
        if persona.is_person and persona.scoped and side == "outside" and got_in:
            assert name in explained, f"{persona.name} gets {cell} out of scope: {name}"


def _published() -> Iterator[tuple[str, Persona, str, str]]:
    lines = lines_of(GOLDEN.read_text())
    for name in CALLS:
        cells = cells_of(lines[shown_as(name)])
        for persona in PERSONAS:
            for side in SIDES:
                yield name, persona, side, cells[persona.name, side]


async def _measured(url: str, root: Path) -> list[Row]:
    async with stack.running(url, None, root) as plane:
        return await measure(plane, CALLS)


async def _write() -> None:
    with tempfile.TemporaryDirectory() as root:
        GOLDEN.write_text(page(await _measured(f"sqlite:///{root}/matrix.db", Path(root))))


if __name__ == "__main__":
    trio.run(_write)
