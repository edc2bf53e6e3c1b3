"""The query loader: text from `sql/queries`, parsed once, compiled once for the dialect.

A dialect folder overrides a shared query by name. Every query has a shape mark and one description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import Dialect

DialectName = Literal["postgres", "sqlite"]
Shape = Literal["one", "many", "scalar", "count"]

_HEAD = re.compile(r"^-- name: ([a-z][a-z0-9_]*) :(one|many|scalar|count)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One statement, ready for the driver's cursor."""

    name: str
    shape: Shape
    description: str
    sql: str
    parameters: frozenset[str]


class QueryFileError(Exception):
    """A file under `sql/queries` does not follow the rules; the message says which and how."""


def load(root: Path, dialect: DialectName) -> Mapping[str, Query]:
    """Return every query of the dialect by name; both dialects must offer the same ones."""
    texts = {name: _texts(root, name) for name in ("postgres", "sqlite")}
    postgres, lite = texts["postgres"], texts["sqlite"]
    missing = {*postgres} ^ {*lite}
    if missing:
        msg = f"queries that only one dialect offers: {sorted(missing)}"
        raise QueryFileError(msg)
    compiled = {
        dialect_name: {name: _compile(name, raw, dialect_name) for name, raw in found.items()}
        for dialect_name, found in (("postgres", postgres), ("sqlite", lite))
    }
    for name, query in compiled["postgres"].items():
        twin = compiled["sqlite"][name]
        if (query.shape, query.parameters) != (twin.shape, twin.parameters):
            msg = f"{name}: shape or parameters differ between the dialects"
            raise QueryFileError(msg)
    return compiled[dialect]


@dataclass(frozen=True, slots=True)
class _Raw:
    shape: str
    body: str
    path: Path


def _texts(root: Path, dialect: str) -> dict[str, _Raw]:
    found: dict[str, _Raw] = {}
    for folder in (root / "queries", root / "queries" / dialect):
        in_folder: set[str] = set()
        for path in sorted(folder.glob("*.sql")):
            for name, raw in _split(path):
                if name in in_folder:
                    msg = f"{path}: {name} is defined twice"
                    raise QueryFileError(msg)
                in_folder.add(name)
                found[name] = raw
    return found


def _split(path: Path) -> list[tuple[str, _Raw]]:
    content = path.read_text()
    heads = list(_HEAD.finditer(content))
    if content.count("-- name:") != len(heads):
        msg = f"{path}: a '-- name:' line has no shape of :one, :many, :scalar or :count"
        raise QueryFileError(msg)
    before = content[: heads[0].start()] if heads else content
    if any(line.strip() and not line.startswith("--") for line in before.splitlines()):
        msg = f"{path}: a statement stands before the first '-- name:' line"
        raise QueryFileError(msg)
    ends = [head.start() for head in heads[1:]] + [len(content)]
    return [
        (head[1], _Raw(head[2], content[head.end() : end].strip(), path))
        for head, end in zip(heads, ends, strict=True)
    ]


def _compile(name: str, raw: _Raw, dialect: str) -> Query:
    lines = raw.body.splitlines()
    comments = [line.removeprefix("--").strip() for line in lines if line.startswith("--")]
    if not comments:
        msg = f"{raw.path}: {name} has no description line"
        raise QueryFileError(msg)
    body = "\n".join(line for line in lines if not line.lstrip().startswith("--"))
    if not body.strip():
        msg = f"{raw.path}: {name} has no statement"
        raise QueryFileError(msg)
    statement = text(body.rstrip().removesuffix(";")).compile(dialect=_dialect(dialect))
    return Query(
        name=name,
        shape=raw.shape,  # type: ignore[arg-type] # the pattern admits the four shapes only
        description=comments[0],
        sql=str(statement),
        parameters=frozenset(statement.params),
    )


def _dialect(name: str) -> Dialect:
    if name == "postgres":
        return postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]
    return sqlite.dialect(paramstyle="named")
