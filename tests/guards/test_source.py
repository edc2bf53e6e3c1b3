"""Rules about the source text that no checker knows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.guards import source

MAX_LINES = 400
FORBIDDEN_NAMES = {"utils", "common", "base", "misc", "manager", "service"}
SQL = re.compile(
    r"\s*(SELECT\s.*\sFROM|INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|(CREATE|ALTER|DROP)\s+TABLE)\b",
    re.IGNORECASE | re.DOTALL,
)
#: Put together from halves, so that this file does not hold what it looks for.
UNFINISHED = re.compile(r"\b(" + "TO" + "DO|FIX" + "ME|XX" + r"X)\b")
MACHINE = re.compile("/wo" + "rk/|/ro" + "ot/|/opt/py" + "pi")
HOSTS = re.compile(
    r"(py"
    + r"pi\.org|python"
    + r"hosted\.org|npm"
    + r"js\.org|proxy\.go"
    + r"lang|crates"
    + r"\.io)"
)
QUERY = re.compile(r"^-- name: (\w+) :", re.MULTILINE)


def _query_names() -> list[str]:
    files = (source.ROOT / "sql" / "queries").rglob("*.sql")
    return sorted({name for path in files for name in QUERY.findall(path.read_text())})


def _text(name: str) -> str:
    return (source.ROOT / name).read_text(errors="replace")


@pytest.mark.parametrize("path", source.modules())
def test_modules_are_short(path: str) -> None:
    assert source.modules()[path].count("\n") < MAX_LINES


def test_modules_have_telling_names() -> None:
    vague = [path for path in source.modules() if FORBIDDEN_NAMES & set(Path(path).parts[:-1])]
    vague += [path for path in source.modules() if Path(path).stem in FORBIDDEN_NAMES]
    assert not vague


def test_asyncio_is_imported_nowhere() -> None:
    for path, node in source.nodes():
        match node:
            case ast.Import(names=names):
                imported = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module)):
                imported = [module]
            case _:
                continue
        roots = {name.partition(".")[0] for name in imported}
        assert not roots & {"asyncio", "anyio"}, path


def test_sql_stays_out_of_python() -> None:
    # sb/db migrates and pings; sb/coord holds Redis scripts, which are not SQL.
    for path, node in source.nodes():
        if path.startswith("sb/db/"):
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not SQL.match(node.value), f"{path}:{node.lineno}"


def test_the_environment_is_read_where_settings_are() -> None:
    allowed = {"sb/settings.py", "sb_agent/settings.py", "sb/cli/dev.py", "sb/cli/remote.py"}
    readers = {
        path
        for path, node in source.nodes()
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    }
    assert readers <= allowed


@pytest.mark.parametrize("name", _query_names())
def test_queries_are_used(name: str) -> None:
    assert any(f'"{name}"' in text for text in source.modules().values())


def test_nothing_is_left_unfinished() -> None:
    found = [name for name in source.tracked_files() if UNFINISHED.search(_text(name))]
    assert not found


def test_no_file_names_the_machine_it_was_made_on_or_a_registry() -> None:
    found = [
        name
        for name in source.tracked_files()
        if MACHINE.search(_text(name)) or HOSTS.search(_text(name))
    ]
    assert not found
