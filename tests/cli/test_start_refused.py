"""A process that cannot start says why, in a sentence with what to change."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import sb
from tests.stack import MASTER_KEY


def refused(done: subprocess.CompletedProcess[str], *told: str) -> None:
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    for each in told:
        assert each in last


@pytest.fixture
def taken() -> Iterator[str]:
    """An address somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield f"127.0.0.1:{found.getsockname()[1]}"


@pytest.fixture
def api(tmp_path: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": f"sqlite:///{tmp_path}/bridge.db",
        "SB_ENV": "dev",
        "SB_WRAP_MASTER_KEYS": MASTER_KEY,
        "API_ADDR": "127.0.0.1:0",
    }


@pytest.mark.parametrize("setting", ["API_ADDR", "API_METRICS_ADDR"])
def test_api_names_the_address_that_is_in_use(
    tmp_path: Path, api: dict[str, str], taken: str, setting: str
) -> None:
    done = sb("api", home=tmp_path, environ={**api, setting: taken})
    refused(done, f"cannot listen on {taken} (", "in use", f"another address with {setting}")


def test_worker_names_the_address_that_is_in_use(tmp_path: Path, taken: str) -> None:
    environ = {"DATABASE_URL": f"sqlite:///{tmp_path}/bridge.db", "SB_WORKER_LOCAL_ADDR": taken}
    done = sb("worker", home=tmp_path, environ=environ)
    refused(done, f"cannot listen on {taken} (", "in use", "with SB_WORKER_LOCAL_ADDR")


def test_agent_names_the_address_that_is_in_use(tmp_path: Path, taken: str) -> None:
    environ = {
        "SB_CP_ENDPOINT": "https://127.0.0.1:1",
        "SB_PROVIDER_TYPE": "file",
        "SB_FILE_STORE_PATH": str(tmp_path / "store"),
        "SB_AGENT_ID": "0b7b4a52-6d5c-4f0e-8f6a-0d7b1c2e3f40",
        "SB_AGENT_SECRET": "s",
        "SB_LOCAL_ADDR": taken,
    }
    done = sb("agent", home=tmp_path, environ=environ)
    refused(done, f"cannot listen on {taken} (", "in use", "another address with SB_LOCAL_ADDR")


@pytest.fixture
def newer(tmp_path: Path, api: dict[str, str]) -> dict[str, str]:
    """Settings over a database that a later release has migrated."""
    assert sb("migrate", home=tmp_path, environ=api).returncode == 0
    with sqlite3.connect(tmp_path / "bridge.db") as connection:
        connection.execute("INSERT INTO schema_migrations VALUES (9000, 'later', 'x', 'x')")
    connection.close()
    return {**api, "SB_WORKER_LOCAL_ADDR": "127.0.0.1:0"}


@pytest.mark.parametrize(
    ("process", "more"), [("api", {}), ("api", {"SB_AUTO_MIGRATE": "false"}), ("worker", {})]
)
def test_process_does_not_start_on_a_newer_schema(
    tmp_path: Path, newer: dict[str, str], process: str, more: dict[str, str]
) -> None:
    done = sb(process, home=tmp_path, environ={**newer, **more})
    refused(done, "the database is at migration 9000", "newer than this", "run the newer release")


def test_api_names_the_account_that_is_to_be_the_administrator_and_is_not_there(
    tmp_path: Path, api: dict[str, str]
) -> None:
    missing = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
    done = sb("api", home=tmp_path, environ={**api, "SB_BOOTSTRAP_ADMIN_USER_ID": missing})
    refused(done, f"SB_BOOTSTRAP_ADMIN_USER_ID: there is no account {missing}")
