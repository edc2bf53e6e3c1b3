"""The authorisation matrix: every call made as everybody, and the page on which it is written."""

from __future__ import annotations

import re
import string
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from sb.db.engine import Transaction
from sb.http import health, openapi
from sb.http.declare import RouteDeclaration, template
from tests.http.hostile import ROUTES, unlimited
from tests.http.matrix_notes import NOTES, PREFACE
from tests.http.matrix_people import PEOPLE
from tests.http.matrix_tenancy import RULES, TENANCY
from tests.http.matrix_things import Call, Site, Table
from tests.http.matrix_work import AGENTS, FLEET, PLATFORM, REQUESTS, UNVERSIONED
from tests.http.matrix_world import PERSONAS, SIDES, Persona, Side, World
from tests.stack import Stack

SECTIONS: Mapping[str, Table] = {
    "People, roles and grants": PEOPLE,
    "Teams, projects, environments and bindings": TENANCY,
    "Rules of projects and teams": RULES,
    "Requests and values": REQUESTS,
    "Provider connections and agents, for people": FLEET,
    "Agents, for themselves": AGENTS,
    "The whole installation": PLATFORM,
    "Outside /api/v1": UNVERSIONED,
}
CALLS: Table = {name: build for table in SECTIONS.values() for name, build in table.items()}
DECLARED: Mapping[str, RouteDeclaration] = {route.name: route for route in ROUTES}
#: Refusals that every route may give first; any other code is named at the end of its line.
ORDINARY = {(401, "authentication_required"), (403, "permission_denied")}
NAME_WIDTH, CELL_WIDTH = 68, 5
#: On a busy machine a store may be late: a 503 changed nothing and says nothing of who may.
ATTEMPTS = 5


def route_of(name: str) -> str:
    """Return the route that a row is about."""
    return name.partition(" | ")[0]


def served() -> set[str]:
    """Return the name of every route there is, the undeclared ones included."""
    others = {"openapi": "/openapi.json"}
    names = health.ENDPOINTS | openapi.ENDPOINTS
    return {*DECLARED, *(f"GET {others.get(name, f'/{name}')}" for name in names)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one call was answered: `shown` tells whether a list held what it was asked about."""

    status: int
    code: str | None = None
    shown: bool | None = None

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    name: str
    cells: dict[tuple[str, Side], Cell] = field(default_factory=dict)


@dataclass(kw_only=True)
class Caller:
    """Makes the calls of the matrix against a running control plane."""

    world: World
    http: httpx.AsyncClient

    async def row(self, name: str) -> Row:
        """Call the route as everybody, inside and outside."""
        made: dict[Side, Call] = {}
        row, declared = Row(name=name), DECLARED.get(route_of(name))
        reads = name.startswith("GET ") and not (declared and declared.spends)
        for persona in PERSONAS:
            for side in SIDES:
                cell = await self._cell(name, persona, side, made)
                row.cells[persona.name, side] = cell
                if cell.succeeded and not reads:
                    # What was there is used up, and the caller's session may be. A refusal left
                    # everything as it was, so that the next caller finds the same.
                    made.clear()
                    self.world.tokens.pop(persona.name, None)
        return row

    async def _cell(self, name: str, persona: Persona, side: Side, made: dict[Side, Call]) -> Cell:
        if side not in made:
            site, call = await self.world.stack.db.run(self._build, name, persona, side)
            if not site.personal:
                made[side] = call
        else:
            call = made[side]
        answer = await self._send(name, call, await self.world.credential(persona, call.crew))
        return _cell_of(answer, call)

    def _build(self, tx: Transaction, name: str, persona: Persona, side: Side) -> tuple[Site, Call]:
        site = Site(tx=tx, world=self.world, side=side, who=persona)
        return site, CALLS[name](site)

    async def _send(self, name: str, call: Call, credential: dict[str, str]) -> httpx.Response:
        method, _, path = route_of(name).partition(" ")
        ids = iter(call.ids)
        path = re.sub(r"<\w+:\w+>", lambda _: next(ids), path)
        prefix = "/api/v1" if route_of(name) in DECLARED else ""
        for _ in range(ATTEMPTS):
            answer = await self.http.request(
                method,
                prefix + path,
                json=call.body,
                params=dict(call.query),
                headers={**call.headers, **credential},
            )
            if answer.status_code != 503:
                break
        # Only the credential of the persona speaks, never a cookie that another one was given.
        self.http.cookies.clear()
        return answer


def _cell_of(answer: httpx.Response, call: Call) -> Cell:
    if answer.is_success:
        shown = None if call.shows is None else call.shows in answer.text
        return Cell(status=answer.status_code, shown=shown)
    return Cell(status=answer.status_code, code=answer.json()["error"])


async def measure(plane: Stack, names: Iterable[str]) -> list[Row]:
    """Call each of these rows as everybody and return what was answered."""
    unlimited(plane)
    state: Any = plane.state
    object.__setattr__(state, "allow_direct_mint", True)
    world = await plane.db.run(World.build, stack=plane)
    async with httpx.AsyncClient(base_url=plane.url, timeout=30) as http:
        caller = Caller(world=world, http=http)
        return [await caller.row(name) for name in names]


def line(row: Row) -> str:
    """Return the row as the page has it: letters stand for the codes at its end."""
    letters: dict[str, str] = {}
    texts = [
        _text(row.cells[persona.name, side], letters) for persona in PERSONAS for side in SIDES
    ]
    route, _, note = row.name.partition(" | ")
    head = f"    {note}" if note else template(route)
    assert len(head) < NAME_WIDTH, f"{head} is too long for its column"
    cells = "".join(text.ljust(CELL_WIDTH) for text in texts)
    codes = ", ".join(f"{letter} {code}" for code, letter in letters.items())
    return f"{head.ljust(NAME_WIDTH)}{cells}{codes}".rstrip()


def _text(cell: Cell, letters: dict[str, str]) -> str:
    if cell.shown is not None:
        return f"{cell.status}{'+' if cell.shown else '-'}"
    if cell.code is None or (cell.status, cell.code) in ORDINARY:
        return str(cell.status)
    letter = letters.setdefault(cell.code, string.ascii_lowercase[len(letters)])
    return f"{cell.status}{letter}"


def page(rows: Iterable[Row]) -> str:
    """Return the whole matrix as the text that is kept."""
    lines = {row.name: line(row) for row in rows}
    parts = [PREFACE, "", "Who calls\n", *_legend()]
    for title, table in SECTIONS.items():
        parts += ["", "", *_heading(title)]
        for name in table:
            parts.append(lines[name])
            if name in NOTES:
                parts.append(f"      ^ {NOTES[name]}")
    return "\n".join(parts) + "\n"


def _legend() -> list[str]:
    return [
        text
        for persona in PERSONAS
        for text in textwrap.wrap(
            f"{persona.label:<8}{persona.name}: {persona.means}",
            initial_indent="  ",
            subsequent_indent=" " * 10,
            width=95,
        )
    ]


def _heading(title: str) -> list[str]:
    labels = "".join(persona.label.ljust(2 * CELL_WIDTH) for persona in PERSONAS).rstrip()
    sides = "".join(f"{'in':<{CELL_WIDTH}}{'out':<{CELL_WIDTH}}" for _ in PERSONAS).rstrip()
    return [title.ljust(NAME_WIDTH) + labels, "-" * (NAME_WIDTH - 1) + " " + sides]


def lines_of(text: str) -> dict[str, str]:
    """Return the line of each row of a page, by the row's name as the page has it."""
    found: dict[str, str] = {}
    route = ""
    for each in text.splitlines():
        head = each[:NAME_WIDTH].rstrip()
        if re.match(r"(GET|POST|PUT|DELETE) /", each):
            route = head
            found[route] = each
        elif each.startswith("    ") and not each.startswith("      ") and route:
            found[f"{route} | {head.strip()}"] = each
    return found


def shown_as(name: str) -> str:
    """Return the name of a row as the page has it."""
    route, bar, note = name.partition(" | ")
    return template(route) + bar + note


def cells_of(text: str) -> dict[tuple[str, Side], str]:
    """Return the cells of a line of the page."""
    columns = [(persona.name, side) for persona in PERSONAS for side in SIDES]
    starts = range(NAME_WIDTH, NAME_WIDTH + CELL_WIDTH * len(columns), CELL_WIDTH)
    return {
        column: text[start : start + CELL_WIDTH].strip()
        for column, start in zip(columns, starts, strict=True)
    }
