"""Where the `sql/` directory is: beside the packages in a checkout, inside `sb` in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def sql_root() -> Path:
    """Return the directory that holds queries, migrations and audit files."""
    bundled = _PACKAGE / "_sql"
    return bundled if bundled.is_dir() else _PACKAGE.parent / "sql"
