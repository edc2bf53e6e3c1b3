"""Commands and links in the documents, and what the compose file starts, exist."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
from typing import Any

import pytest
import yaml

from sb.cli.main import COMMANDS
from sb.settings import ApiSettings
from sb_agent import settings as agent_settings
from sb_worker.settings import WorkerSettings
from tests.guards import source

COMPOSE: dict[str, Any] = yaml.safe_load((source.ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: found for name, found in SERVICES.items() if "build" in found}

ALL_COMMANDS = [
    pytest.param(line, id=f"{path.name}: {line[:60]}")
    for path in source.DOCUMENTS
    for line in source.commands(path.read_text())
]


def _parse_sb(words: list[str]) -> argparse.Namespace:
    """Return what the real parser of the command makes of these words, or fail."""
    name = words[1]
    assert name in COMMANDS, f"there is no command `sb {name}`"
    parser = argparse.ArgumentParser()
    importlib.import_module(COMMANDS[name][0]).configure(name, parser)
    return parser.parse_args(words[2:])


@pytest.mark.parametrize("line", ALL_COMMANDS)
def test_commands_of_the_documents_exist(line: str) -> None:
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if not words:
        return
    if words[0].startswith("./"):
        script = source.ROOT / words[0]
        assert os.access(script, os.X_OK), f"{words[0]} cannot be run"
    if words[0] == "./scripts/dev":
        _parse_sb(["sb", "dev", *words[1:]])
    if words[0] == "sb":
        _parse_sb(words)
    for word in words:
        if word.startswith(("sql/", "deploy/")):
            assert (source.ROOT / word).is_file(), f"{word} does not exist"


def test_the_readme_names_the_two_commands() -> None:
    lines = list(source.commands((source.ROOT / "README.md").read_text()))
    assert {"./scripts/dev", "./scripts/test"} <= set(lines)


@pytest.mark.parametrize("path", source.DOCUMENTS, ids=lambda path: path.name)
def test_links_of_the_documents_lead_somewhere(path: Any) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        name, _, anchor = target.partition("#")
        assert not target.startswith("http"), "the documents stand on their own"
        linked = path.parent / name if name else path
        assert linked.is_file(), target
        headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
        assert not anchor or anchor in {_anchor(heading) for heading in headings}, target


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def test_folders_of_the_readme_exist() -> None:
    readme = (source.ROOT / "README.md").read_text()
    for name in source.code(source.section(readme, "Where things are")):
        if "/" in name or "." in name:
            assert (source.ROOT / name).exists(), name


def test_compose_project_has_the_name_people_know() -> None:
    assert COMPOSE["name"] == "secrets-bridge"
    assert {"postgres", "redis", "api", "worker", "agent", "vault", "ingress"} == set(SERVICES)


@pytest.mark.parametrize("name", OURS)
def test_compose_commands_are_ours(name: str) -> None:
    command = OURS[name]["command"]
    assert command[0] == "sb"
    assert _parse_sb(command).run


@pytest.mark.parametrize("name", OURS)
def test_compose_variables_are_settings_of_their_process(name: str) -> None:
    fields = {
        "api": ApiSettings.model_fields,
        "worker": WorkerSettings.model_fields,
        "agent": agent_settings._Environment.model_fields,
    }[name]
    known = {field.upper() for field in fields}
    given = set(OURS[name]["environment"])
    if name == "agent":
        vault = source.section(source.document("configuration.md"), "Provider `vault`")
        known |= set(source.rows(vault))
    assert given <= known


def test_compose_starts_with_what_the_settings_accept() -> None:
    lines = (source.ROOT / "deploy" / "env.example").read_text().splitlines()
    named = {line.lstrip("#").partition("=")[0] for line in lines if re.match(r"#?[A-Z_]+=", line)}
    used = set(re.findall(r"\$\{(\w+)", (source.ROOT / "compose.yaml").read_text()))
    assert named <= used


@pytest.mark.parametrize("name", SERVICES)
def test_compose_services_have_healthchecks(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]


def test_compose_services_are_listed_with_their_profiles() -> None:
    text = source.section(source.document("operations.md"), "In containers")
    listed = {name: source.code(cells[1]) for name, cells in source.rows(text).items()}
    assert listed == {name: found.get("profiles", []) for name, found in SERVICES.items()}


@pytest.mark.parametrize("name", OURS)
def test_images_have_the_target_that_compose_builds(name: str) -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", _dockerfile(), re.MULTILINE)
    assert OURS[name]["build"]["target"] in stages


def _dockerfile() -> str:
    return (source.ROOT / "Dockerfile").read_text()


def test_images_hold_what_they_copy_and_nobody_is_root() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", _dockerfile(), re.MULTILINE)
    allowed = (source.ROOT / ".dockerignore").read_text()
    for name in " ".join(copied).split():
        assert (source.ROOT / name).exists(), name
        assert f"!{name}" in allowed, f"{name} is kept out of the build"
    runtime = _dockerfile().partition(" AS runtime\n")[2]
    assert "\nUSER 65532:65532\n" in runtime


def test_the_front_door_leads_to_the_api_and_hides_metrics() -> None:
    caddyfile = (source.ROOT / "deploy" / "Caddyfile").read_text()
    public = next(line.split()[2:] for line in caddyfile.splitlines() if "@public path" in line)
    assert public == ["/api/v1/*", "/healthz", "/readyz", "/openapi.json", "/docs"]
    assert "reverse_proxy api:8080" in caddyfile
    assert SERVICES["ingress"]["ports"] == [
        "${INGRESS_HOST_ADDRESS:-127.0.0.1}:${INGRESS_HOST_PORT:-18080}:8080"
    ]
