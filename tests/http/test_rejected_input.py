"""Every field of every body, and every query parameter, of the routes people use: what it cannot be
is refused by its name, with a reason and a stable code, and nothing happens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from sb.http.bodies import MAX_DEPTH
from sb.http.changes import Changes
from sb.http.declare import RouteDeclaration, Session
from tests.http.hostile import ROUTES, callers, nothing_changes, path_of, refused
from tests.stack import Stack

PEOPLE = [route for route in ROUTES if isinstance(route.access, Session)]
WITH_BODY = [route for route in PEOPLE if route.body is not None]
WITH_QUERY = [route for route in PEOPLE if route.query is not None]
#: A value of each kind of JSON.
KINDS: Mapping[str, Any] = {
    "string": "no such value",
    "number": 7.5,
    "boolean": True,
    "array": [[]],
    "object": {"no such key": []},
    "null": None,
}
#: How a pattern begins that is for ids alone.
IDS = "^[0-9a-fA-F]{8}"
#: Taken and ignored, for old clients.
IGNORED = {"requester_id", "approver_id", "created_by"}


@dataclass(frozen=True)
class Bad:
    """A value that one place of a body cannot have, with what is around it."""

    place: tuple[str | int, ...]
    value: Any
    why: str

    @property
    def body(self) -> Any:
        found = self.value
        for part in reversed(self.place):
            found = [found] if isinstance(part, int) else {part: found}
        return found

    @property
    def field(self) -> str:
        return ".".join(map(str, self.place))


def bad_values(model: type[BaseModel]) -> list[Bad]:
    """Return what is wrong in each place the model's own schema describes, worked out from it."""
    schema = model.model_json_schema()
    return list(_in_object(schema, schema.get("$defs", {}), (), model))


def _in_object(
    schema: Mapping[str, Any],
    definitions: Mapping[str, Any],
    place: tuple[str | int, ...],
    model: type[BaseModel] | None = None,
) -> Iterator[Bad]:
    if schema.get("additionalProperties") is False:
        yield Bad((*place, "no_such_field"), 1, "unknown field")
    for name, field in schema.get("properties", {}).items():
        if name in IGNORED:
            continue
        here = (*place, name)
        yield from _at(field, definitions, here)
        if model is not None and issubclass(model, Changes) and name not in model.nullable:
            yield Bad(here, None, "null that would be no change")


def _at(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], place: tuple[str | int, ...]
) -> Iterator[Bad]:
    options = [_resolved(one, definitions) for one in schema.get("anyOf", [schema])]
    taken = {kind for option in options for kind in _kinds(option)}
    for kind, value in KINDS.items():
        if kind not in taken and "any" not in taken:
            yield Bad(place, value, f"{kind} in place of {'or '.join(sorted(taken))}")
    for option in options:
        yield from _beyond(option, place)
        if option.get("type") == "array":
            yield from _at(option.get("items", {}), definitions, (*place, 0))
        elif "properties" in option:
            yield from _in_object(option, definitions, place)


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Mapping[str, Any] = definitions[reference.removeprefix("#/$defs/")]
    return found


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    """Return which values of `KINDS` the schema might take, or what else it is."""
    if {"enum", "const"} & set(schema):
        return {"one of a few"}
    if schema.get("format") == "date-time" or IDS in schema.get("pattern", ""):
        return {"a text of one form"}
    kind = schema.get("type", "any")
    return {"whole number"} if kind == "integer" else {kind}


def _beyond(schema: Mapping[str, Any], place: tuple[str | int, ...]) -> Iterator[Bad]:
    """Yield what is of the right kind, and one more or less than it may be."""
    kind = schema.get("type")
    if kind == "string" and "maxLength" in schema:
        yield Bad(place, "x" * (schema["maxLength"] + 1), "too long")
    if kind == "string" and schema.get("minLength"):
        yield Bad(place, "x" * (schema["minLength"] - 1), "too short")
    if kind == "array" and "maxItems" in schema:
        yield Bad(place, ["read"] * (schema["maxItems"] + 1), "too many")
    if kind == "array" and schema.get("minItems"):
        yield Bad(place, [], "too few")
    if kind == "object" and "maxProperties" in schema:
        many = {f"k{n}": "v" for n in range(schema["maxProperties"] + 1)}
        yield Bad(place, many, "too many keys")
    if "maximum" in schema:
        yield Bad(place, schema["maximum"] + 1, "too large")
    if "minimum" in schema:
        yield Bad(place, schema["minimum"] - 1, "too small")


def test_the_schemas_say_what_is_wrong_everywhere() -> None:
    found = {route.name: bad_values(route.body) for route in WITH_BODY if route.body}
    assert len(found) > 25
    for name, values in found.items():
        assert {bad.why for bad in values} >= {"unknown field"}, name
    everything = [bad for values in found.values() for bad in values]
    whys = {bad.why for bad in everything}
    assert whys >= {"too long", "too short", "too many", "too few", "too large", "too small"}
    assert "null that would be no change" in whys
    assert "projects.0.environments.0.kind" in {bad.field for bad in everything}
    assert max(len(bad.place) for bad in everything) < MAX_DEPTH


async def test_no_field_takes_what_it_cannot_be(plane: Stack, database_url: str) -> None:
    async with callers(plane) as who, nothing_changes(database_url):
        for route in WITH_BODY:
            assert route.body is not None
            for bad in bad_values(route.body):
                answer = await who.admin.http.request(route.method, path_of(route), json=bad.body)
                assert_named(answer, route, bad.field, bad.why)


def assert_named(answer: httpx.Response, route: RouteDeclaration, field: str, why: str) -> None:
    body = refused(answer, 400, "invalid_request")
    named = [one["field"] for one in body["fields"]]
    # What is wrong inside of a place, such as a key of an object, may be named more closely.
    found = any(name == field or name.startswith(f"{field}.") for name in named)
    assert found, f"{route.name}: {field}, {why}: {named}"
    assert all(one["reason"] for one in body["fields"])


# --- queries


def bad_queries(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield each parameter with a text that it cannot be."""
    for name, field in model.model_json_schema().get("properties", {}).items():
        for option in field.get("anyOf", [field]):
            if "maxLength" in option:
                yield name, "x" * (option["maxLength"] + 1)
            if option.get("minLength"):
                yield name, ""
            if "minimum" in option:
                yield name, str(option["minimum"] - 1)
            if option.get("type") in ("integer", "boolean") or {"enum", "const", "format"} & set(
                option
            ):
                yield name, "no such value"


async def test_no_query_parameter_takes_what_it_cannot_be(plane: Stack, database_url: str) -> None:
    tried: set[str] = set()
    async with callers(plane) as who, nothing_changes(database_url):
        for route in WITH_QUERY:
            assert route.query is not None
            for name in route.query.model_fields:
                params: Any = [(name, "1"), (name, "2")]
                answer = await _asked(who.admin.http, route, params)
                assert_named(answer, route, name, "twice")
            for name, text in bad_queries(route.query):
                answer = await _asked(who.admin.http, route, [(name, text)])
                assert_named(answer, route, name, text[:40])
                tried.add(name)
    assert tried >= {"limit", "cursor", "status", "plan", "since", "needs_my_decision", "wait"}


async def _asked(
    http: httpx.AsyncClient, route: RouteDeclaration, params: list[tuple[str, str]]
) -> httpx.Response:
    body = {"version": 1} if route.body is not None else None
    return await http.request(route.method, path_of(route), params=params, json=body)


@pytest.mark.parametrize("text", ["bm90IGEgY3Vyc29y", "%%%", "x"])
async def test_a_cursor_nobody_gave_out_is_refused_everywhere(
    plane: Stack, database_url: str, text: str
) -> None:
    async with callers(plane) as who, nothing_changes(database_url):
        for route in WITH_QUERY:
            assert route.query is not None
            if "cursor" in route.query.model_fields:
                answer = await _asked(who.admin.http, route, [("cursor", text)])
                refused(answer, 400, "invalid_cursor")
