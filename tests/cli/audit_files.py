"""The files for people with psql: where they are, what they say of themselves, what they answer."""

from __future__ import annotations

import csv
import io
import re
import subprocess
from datetime import datetime
from pathlib import Path

from tests.cli import running
from tests.guards.source import ROOT

FOLDER = ROOT / "sql" / "audit"
FILES = sorted(FOLDER.glob("*.sql"))
READ_ONLY = {"PGOPTIONS": "-c default_transaction_read_only=on"}

Rows = list[dict[str, str]]


def psql(url: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real psql, without the right to change anything."""
    return subprocess.run(
        ["psql", "-X", "--csv", url, *arguments],
        env=running.environment(Path("/"), **READ_ONLY),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def given(variables: dict[str, str]) -> list[str]:
    return [word for name, text in variables.items() for word in ("-v", f"{name}={text}")]


def rows(url: str, stem: str, **variables: str) -> Rows:
    """Return what the file answers."""
    done = psql(url, *given(variables), "-f", str(FOLDER / f"{stem}.sql"))
    assert (done.returncode, done.stderr) == (0, "")
    return list(csv.DictReader(io.StringIO(done.stdout)))


def refused(url: str, stem: str, **variables: str) -> list[str]:
    """Return the lines in which psql refuses, having answered no row."""
    done = psql(url, *given(variables), "-f", str(FOLDER / f"{stem}.sql"))
    assert done.returncode == 3
    assert list(csv.DictReader(io.StringIO(done.stdout))) == []
    return re.sub(r"^psql:[^ ]*: ", "", done.stderr).splitlines()


def times(found: Rows, column: str = "occurred_at") -> list[datetime]:
    return [datetime.fromisoformat(row[column]) for row in found]


def declared(path: Path) -> dict[str, str]:
    """Return the variables that the head of the file names, each with what it is to be."""
    return dict(re.findall(r"(\w+) \(([^)]*)\)", _variables(path)))


def optional(path: Path) -> set[str]:
    """Return those of them that the file does without."""
    return {name for name, form in declared(path).items() if "; optional" in form}


def example(path: Path) -> str:
    """Return the call that the head of the file shows."""
    run = re.search(r"^-- Run:  (psql .*)$", path.read_text(), re.MULTILINE)
    assert run, f"{path.name} does not say how to run it"
    return run[1]


def former(path: Path) -> set[str]:
    """Return the names that variables of the file had before, and still may be given by."""
    return set(re.findall(r"^-- (\w+), as \w+ was called before,", path.read_text(), re.MULTILINE))


def _variables(path: Path) -> str:
    head = re.search(r"^-- Variables: (.+)\.$", path.read_text(), re.MULTILINE)
    assert head, f"{path.name} does not say which variables it takes"
    return head[1]
