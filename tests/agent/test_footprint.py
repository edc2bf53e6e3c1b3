"""What an agent carries: no database, no Redis, no web framework, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FORBIDDEN = (
    "sqlalchemy",
    "psycopg",
    "psycopg_pool",
    "sqlite3",
    "_sqlite3",
    "redis",
    "quart",
    "quart_trio",
    "hypercorn",
    "argon2",
    "sb.db",
    "sb.ops",
    "sb.http",
    "sb.auth",
    "sb.kms",
    "sb.coord",
    "sb.serve",
    "sb_worker",
)
REPORT = "import json, sys; print('\\n' + json.dumps(sorted(sys.modules)))"
ROOT = Path(__file__).parents[2]


def run(code: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **(env or {})},
        timeout=60,
        check=False,
    )


def loaded(code: str, env: dict[str, str] | None = None) -> set[str]:
    """Return the modules a fresh interpreter has loaded after the code."""
    done = run(f"{code}\n{REPORT}", env)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def unwanted(modules: set[str]) -> set[str]:
    return {name for name in modules for bad in FORBIDDEN if f"{name}.".startswith(f"{bad}.")}


@pytest.mark.parametrize(
    "code",
    [
        "import sb_agent.daemon",
        "import sb_agent.providers.file",
        "import sb_agent.settings, sb_agent.identity, sb_agent.keys",
    ],
)
def test_agent_loads_no_database_redis_or_web_framework(code: str) -> None:
    found = loaded(code)
    assert unwanted(found) == set()
    assert "hvac" not in found


def test_vault_provider_loads_no_database_redis_or_web_framework() -> None:
    found = loaded("import sb_agent.daemon, sb_agent.providers.vault")
    assert unwanted(found) == set()
    assert "hvac" in found


ENV = {
    "SB_CP_ENDPOINT": "https://127.0.0.1:1",
    "SB_PROVIDER_TYPE": "vault",
    "SB_VAULT_ADDR": "https://127.0.0.1:1",
    "SB_VAULT_TOKEN": "t",
    "SB_LOCAL_ADDR": "",
    "SB_IDENTITY_FILE": "/nonexistent/identity.json",
}


@pytest.mark.parametrize("arguments", [["agent", "--check-config"], ["check", "agent"]])
def test_command_that_checks_an_agents_settings_loads_no_server(arguments: list[str]) -> None:
    code = f"from sb.cli.main import main\nassert main({arguments!r}) == 0"
    fixed = {"SB_AGENT_ID": "0b7b4a52-6d5c-4f0e-8f6a-0d7b1c2e3f40", "SB_AGENT_SECRET": "s"}
    assert unwanted(loaded(code, ENV | fixed)) == set()


def test_command_that_runs_an_agent_loads_no_server() -> None:
    """It gets as far as the identity it does not have, with its provider opened."""
    code = "from sb.cli.main import main\nassert main(['agent']) == 1"
    found = loaded(code, ENV)
    assert unwanted(found) == set()
    assert {"sb_agent.daemon", "hvac", "httpx"} <= found


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"SB_CP_ENDPOINT": "", "LOG_LEVEL": "loud"}, ["SB_CP_ENDPOINT", "LOG_LEVEL"]),
        ({"SB_VAULT_ADDR": ""}, ["SB_VAULT_ADDR"]),
        ({}, ["no identity"]),
        ({"SB_AGENT_PRIVATE_KEY_FILE": "/dev/null/key"}, ["/dev/null/key"]),
    ],
)
def test_agent_that_cannot_start_says_why_without_a_traceback(
    env: dict[str, str], told: list[str]
) -> None:
    done: Any = run(
        "import sys; from sb.cli.main import main; sys.exit(main(['agent']))", {**ENV, **env}
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for each in told:
        assert each in done.stderr
