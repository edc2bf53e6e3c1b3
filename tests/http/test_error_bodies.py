"""Error bodies are published: every code with its status, its sentence and its details."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import sb
from sb.errors import InternalError, SbError
from sb.http.errors import ErrorBody

GOLDEN = Path(__file__).parents[1] / "golden" / "errors.json"
SOURCE = Path(sb.__file__).parent
#: Keywords of an error that are not details of its body.
NOT_SHOWN = {"audit", "headers", "message"}


def kinds() -> list[type[SbError]]:
    """Return every error class of the product."""
    for module in pkgutil.walk_packages([str(SOURCE)], "sb."):
        if not module.name.startswith("sb.cli"):
            importlib.import_module(module.name)
    found: set[type[SbError]] = set()
    pending: list[type[SbError]] = [SbError]
    while pending:
        kind = pending.pop()
        if kind.__module__.partition(".")[0] == "sb":
            found.add(kind)
            pending.extend(kind.__subclasses__())
    return sorted(found, key=lambda kind: (kind.code, kind.__name__))


def details() -> dict[str, set[str]]:
    """Return the details that the places which raise an error give it, by the class's name."""
    found: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                given = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
                found.setdefault(name, set()).update(given - NOT_SHOWN)
    return found


def published() -> dict[str, Any]:
    raised = details()
    codes: dict[str, Any] = {}
    for kind in kinds():
        entry = codes.setdefault(
            kind.code, {"status": kind.status, "message": kind.message, "details": []}
        )
        more = raised.get(kind.__name__, set())
        entry["details"] = sorted({*entry["details"], *more})
    return {"body": sorted(ErrorBody.model_fields), "codes": codes}


def test_error_bodies_are_the_published_ones() -> None:
    """To change them on purpose: `python -m tests.http.test_error_bodies` writes the file anew."""
    assert published() == json.loads(GOLDEN.read_text())


def test_a_code_means_one_thing() -> None:
    meanings: dict[str, set[tuple[int, str]]] = {}
    for kind in kinds():
        meanings.setdefault(kind.code, set()).add((kind.status, kind.message))
        own = kind.code != "internal_error" or issubclass(kind, InternalError) or kind is SbError
        assert own, f"{kind.__name__} has no code of its own"
    assert {code: found for code, found in meanings.items() if len(found) > 1} == {}


def test_every_code_is_a_refusal_with_a_sentence() -> None:
    for kind in kinds():
        assert 400 <= kind.status < 600, kind
        assert kind.code == kind.code.lower().replace("-", "_"), kind
        assert len(kind.message) > 15, kind


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(published(), indent=2, sort_keys=True, ensure_ascii=False) + "\n")
