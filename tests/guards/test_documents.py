"""The documents list what the code has, all of it, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from sb.auth.permissions import CATALOGUE, SEED_ROLES
from sb.errors import SbError
from sb.http import app, health, openapi
from sb.http.declare import REGISTRY, Agent, Public, RouteDeclaration, Session, template
from sb.http.routes import load_all
from sb.settings import ApiSettings, ProcessSettings
from sb.settings import load as load_settings
from sb_agent import settings as agent_settings
from sb_worker.settings import WorkerSettings
from sb_worker.sweeps import SWEEPS
from tests.guards import source

load_all()

#: An empty cell of a table.
NOTHING = "\N{EN DASH}"

OWN_API = {
    n: ApiSettings.model_fields[n] for n in ApiSettings.__annotations__ if n != "model_config"
}
OWN_WORKER = {n: WorkerSettings.model_fields[n] for n in WorkerSettings.__annotations__}
AGENT_FIELDS = agent_settings._Environment.model_fields
SECTIONS: dict[str, dict[str, Any]] = {
    "API and worker": dict(ProcessSettings.model_fields),
    "API": OWN_API,
    "Worker": OWN_WORKER,
}
#: Beside the fields: credentials from files, and what the providers read for themselves.
AGENT_FILES = {f"{name}_FILE" for name in agent_settings._FROM_FILES}


def _read_by_name(*prefixes: str) -> set[str]:
    """The variables that modules look up by a literal name."""
    found = set()
    for _, node in source.nodes(*prefixes):
        match node:
            case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(name)), *_]):
                found.add(name)
    return {name for name in found if re.fullmatch(r"(SB|LOG)_[A-Z_]+", name)}


def _default(field: Any) -> str:
    """A default as the tables write it."""
    if field.is_required():
        return "required"
    if field.default is PydanticUndefined:
        return "the host's name"
    match field.default:
        case None | ():
            return NOTHING
        case bool() as flag:
            return f"`{str(flag).lower()}`"
        case timedelta() as span:
            return f"`{_span(span.total_seconds())}`"
        case float() as seconds:
            return f"`{_span(seconds)}`"
        case other:
            return f"`{other}`"


def _span(seconds: float) -> str:
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


@pytest.mark.parametrize("title", SECTIONS)
def test_settings_of_a_process_are_listed_with_their_defaults(title: str) -> None:
    listed = source.rows(source.section(source.document("configuration.md"), title))
    expected = {name.upper(): _default(field) for name, field in SECTIONS[title].items()}
    assert {name: cells[2] for name, cells in listed.items()} == expected


def test_settings_of_the_agent_are_listed_with_their_defaults() -> None:
    agent = source.section(source.document("configuration.md"), "Agent").partition("\n### ")[0]
    listed = source.rows(agent)
    expected = {name.upper(): _default(field) for name, field in AGENT_FIELDS.items()}
    expected |= {name: NOTHING for name in AGENT_FILES if not name.startswith("SB_VAULT_")}
    assert {name: cells[2] for name, cells in listed.items()} == expected


@pytest.mark.parametrize("provider", ["vault", "file"])
def test_settings_of_a_provider_are_listed(provider: str) -> None:
    text = source.section(source.document("configuration.md"), f"Provider `{provider}`")
    read = _read_by_name(f"sb_agent/providers/{provider}.py")
    prefix = {"vault": "SB_VAULT_", "file": "SB_FILE_STORE_"}[provider]
    assert set(source.rows(text)) == read | {n for n in AGENT_FILES if n.startswith(prefix)}


def test_settings_of_the_command_line_are_listed() -> None:
    text = source.section(source.document("configuration.md"), "Command line")
    assert set(source.rows(text)) == _read_by_name("sb/cli/remote.py")


def test_no_document_names_a_setting_that_does_not_exist() -> None:
    known = set(source.rows("\n".join(_split_sections())))
    shared = {name for name in known if name.lower() in {**ProcessSettings.model_fields, **OWN_API}}
    for path in source.DOCUMENTS:
        named = re.findall(r"\b(?:SB|API|DATABASE|REDIS|LOG)_[A-Z][A-Z_]*[A-Z]\b", path.read_text())
        ghosts = set(named) - known - {f"{name}_FILE" for name in shared}
        assert not ghosts, f"{path.name}: {sorted(ghosts)}"


def _split_sections() -> Iterator[str]:
    # LOG_LEVEL stands in two tables on purpose; a name may be listed once per table.
    seen: set[str] = set()
    for line in source.document("configuration.md").splitlines():
        match = re.match(r"\| `([A-Z_]+)`", line)
        if match and match[1] not in seen:
            seen.add(match[1])
            yield line


PROCESSES = [
    (ApiSettings, {"SB_ENV": "dev", "SB_WRAP_MASTER_KEYS": "A" * 43 + "="}),
    (WorkerSettings, {}),
]


@pytest.mark.parametrize(("model", "extra"), PROCESSES)
def test_required_settings_alone_are_enough(model: Any, extra: dict[str, str]) -> None:
    load_settings(model, {"DATABASE_URL": "sqlite:///x.db", **extra})


def test_required_settings_alone_are_enough_for_the_agent() -> None:
    agent_settings.load({"SB_CP_ENDPOINT": "https://bridge.example.com"})


# --- the API


def _routes() -> list[RouteDeclaration]:
    return [found for found in REGISTRY if found.handler.__module__.startswith("sb.")]


def _name(found: RouteDeclaration) -> str:
    return f"{found.method} {app.PREFIX}{template(found.path)}"


def _who(found: RouteDeclaration) -> str:
    match found.access:
        case Public():
            return "anybody"
        case Agent():
            return "the agent itself"
        case Session(permission=None):
            return "signed in"
        case Session(permission=permission, scope=scope):
            return f"`{permission}`, {'unscoped' if scope == 'global' else 'at any scope'}"


def _limit(found: RouteDeclaration) -> str:
    if found.limit is None:
        return NOTHING
    assert found.limit.window == 60
    key = {"ip": "address", "user": "person", "agent": "agent"}[found.limit.key]
    return f"{found.limit.limit} a minute per {key}"


def test_routes_are_listed_with_who_may_call_them_and_how_often() -> None:
    listed = source.rows(source.document("api.md"))
    documented = {name: cells[1:3] for name, cells in listed.items() if f" {app.PREFIX}/" in name}
    assert documented == {_name(found): [_who(found), _limit(found)] for found in _routes()}


def test_routes_that_take_an_idempotency_key_are_marked() -> None:
    listed = source.rows(source.document("api.md"))
    marked = {name for name, cells in listed.items() if cells[0].endswith("†")}
    assert marked == {_name(found) for found in _routes() if found.creates}


def test_paths_outside_the_prefix_are_listed() -> None:
    listed = source.rows(source.section(source.document("api.md"), "Outside `/api/v1`"))
    names = {name.removeprefix("GET /").removesuffix(".json") for name in listed}
    assert names == health.ENDPOINTS | openapi.ENDPOINTS


def test_no_document_names_a_route_that_does_not_exist() -> None:
    shapes = [re.sub(r"<\w+:\w+>", r"[^/\\s`?]+", found.path) for found in _routes()]
    known = re.compile(f"{app.PREFIX}(?:{'|'.join(shapes)})?")
    for path in source.DOCUMENTS:
        text = path.read_text().replace(f"{app.PREFIX}/…", "")
        for named in re.findall(rf"{app.PREFIX}[A-Za-z0-9/_{{}}$-]*", text):
            assert known.fullmatch(named), f"{path.name}: {named}"


def _errors() -> dict[str, int]:
    found: dict[str, int] = {}
    pending: list[type[SbError]] = [SbError]
    while pending:
        error = pending.pop()
        pending.extend(error.__subclasses__())
        if error.__module__.startswith("sb."):
            assert found.setdefault(error.code, error.status) == error.status, error.code
    return found


def test_error_codes_are_listed_with_their_status() -> None:
    listed = source.rows(source.section(source.document("api.md"), "Error codes"))
    assert {name: int(cells[1]) for name, cells in listed.items()} == _errors()


# --- operations


def _metrics() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Every metric the code makes: its type and labels by the name Prometheus sees."""
    found = {}
    for _, node in source.nodes():
        match node:
            case ast.Call(
                func=ast.Name(id="Counter" | "Gauge" | "Histogram" | "Summary" as kind),
                args=[ast.Constant(value=str(name)), _, *rest],
            ):
                labels = tuple(ast.literal_eval(rest[0])) if rest else ()
                shown = f"{name}_total" if kind == "Counter" else name
                found[shown] = (kind.lower(), labels)
    return found


def test_metrics_are_listed_with_their_type_and_labels() -> None:
    listed = source.rows(source.section(source.document("operations.md"), "Metrics"))
    documented = {name: (cells[1], tuple(source.code(cells[2]))) for name, cells in listed.items()}
    assert documented == _metrics()


def test_sweeps_are_listed_with_their_interval() -> None:
    settings = load_settings(WorkerSettings, {"DATABASE_URL": "sqlite:///x.db"})
    no_database: Any = None
    tasks = [sweep(no_database, settings) for sweep in SWEEPS]
    listed = source.rows(source.section(source.document("operations.md"), "Sweeps"))
    assert {name: cells[1] for name, cells in listed.items()} == {
        task.name: _span(task.interval_seconds) for task in tasks
    }


def test_audit_files_are_listed_with_their_variables() -> None:
    listed = source.rows(source.section(source.document("operations.md"), "Audit with psql"))
    expected = {
        str(path.relative_to(source.ROOT)): set(re.findall(r":'(\w+)'", path.read_text()))
        for path in (source.ROOT / "sql" / "audit").glob("*.sql")
    }
    assert {name: set(source.code(cells[2])) for name, cells in listed.items()} == expected


# --- security


def _actions() -> set[str]:
    """Every audit action: what is passed as `action`, or names a refusal."""
    found: set[str] = set()
    for _, node in source.nodes():
        match node:
            case ast.keyword(arg="action", value=value):
                found |= _texts(value)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[first, *_]):
                if name in ("Denial", "denied", "_lease_denied"):
                    found |= _texts(first)
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name.isupper():
                found |= _texts(value)
    return {text for text in found if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", text)}


def _texts(value: ast.expr) -> set[str]:
    match value:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=one, orelse=other):
            return _texts(one) | _texts(other)
    return set()


def test_audit_actions_are_listed() -> None:
    listed = source.rows(source.section(source.document("security.md"), "Audit"))
    assert set(listed) == _actions()


def test_permissions_are_listed_and_marked_when_asked_for() -> None:
    listed = source.rows(source.section(source.document("security.md"), "Permissions"))
    assert set(listed) == {permission.key for permission in CATALOGUE}
    asked = {
        node.value
        for _, node in source.nodes("sb/ops", "sb/http")
        if isinstance(node, ast.Constant) and node.value in listed
    }
    marked = {name for name, cells in listed.items() if cells[1] != NOTHING}
    assert marked == asked


def test_seeded_roles_are_named() -> None:
    text = source.section(source.document("security.md"), "Permissions")
    line = text[text.index("Seeded roles:") :].partition(". ")[0]
    assert source.code(line) == [role.name for role in SEED_ROLES]
