"""What a document refers to by name that neither it nor the database has: all of it at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sb.errors import InvalidInputError
from sb.ops.organisation_names import BY_NAME, Names, above, joined

Document = Mapping[str, Any]
#: How many unknown names one refusal tells.
MOST = 50
#: A place of the document, the noun it refers to, and by which name.
Reference = tuple[str, str, str]


def require_known(document: Document, names: Names) -> None:
    """Refuse a document that refers to something unknown, with the place of each of them."""
    made = _made(document)
    faults: list[dict[str, str]] = []
    for place, noun, name in (*_of_tenancy(document), *_of_powers(document)):
        there = name in made.get(noun, ()) or names.knows(noun, name)
        if not there and len(faults) < MOST:
            faults.append({"field": place, "reason": names.unknown(noun, name)})
    if faults:
        at = ".".join(faults[0]["field"].split(".")[:2])
        raise InvalidInputError(fields=faults, at=at)


def _made(document: Document) -> dict[str, set[str]]:
    """Return the names that the document itself gives, by noun."""
    return {
        "role": {item["name"] for item in document.get("roles", ())},
        "team": {item["path"] for item in document.get("teams", ())},
        "project": {item["name"] for item in document.get("projects", ())},
        "environment": {
            joined([item["name"], inner["name"]])
            for item in document.get("projects", ())
            for inner in item.get("environments", ())
        },
        "workflow": {item["name"] for item in document.get("workflows", ())},
    }


def _of_tenancy(document: Document) -> Iterator[Reference]:
    for at, item in _items(document, "teams"):
        if (parent := above(item["path"])) is not None:
            yield f"{at}.path", "team", parent
        for index, email in enumerate(item.get("members", ())):
            yield f"{at}.members.{index}", "person", email
    for at, item in _items(document, "projects"):
        yield from _named(item, ("team",), at)
        for inner_at, inner in _items(item, "bindings", f"{at}."):
            yield from _named(inner, ("connection",), inner_at)
            if inner.get("environment"):
                path = joined([item["name"], inner["environment"]])
                yield f"{inner_at}.environment", "environment", path


def _of_powers(document: Document) -> Iterator[Reference]:
    for at, item in _items(document, "workflows"):
        if item.get("approver_role"):
            yield f"{at}.approver_role", "role", item["approver_role"]
    for at, item in _items(document, "policies"):
        yield from _named(item["selector"], tuple(BY_NAME), f"{at}.selector")
        yield from _named(item, ("workflow", "project", "team"), at)
    for at, item in _items(document, "grants"):
        yield from _named(item, ("person", "role"), at)
        yield from _named(item["scope"], tuple(BY_NAME), f"{at}.scope")


def _items(within: Document, section: str, before: str = "") -> Iterator[tuple[str, Document]]:
    for index, item in enumerate(within.get(section) or ()):
        yield f"{before}{section}.{index}", item


def _named(item: Document, keys: Sequence[str], at: str) -> Iterator[Reference]:
    for key in keys:
        if item.get(key) is not None:
            yield f"{at}.{key}", key.partition("_")[0], str(item[key])
