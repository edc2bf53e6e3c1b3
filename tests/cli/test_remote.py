"""What every command that signs in leaves behind, and how it tells to come again later."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli import running
from tests.cli.running import Dev, sign_in
from tests.servers import free_port


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Dev]:
    """A dev mode of the test's own: elsewhere others have used up the sign-outs of this minute."""
    with running.dev(tmp_path, tmp_path / "data", free_port()) as found:
        yield found


def open_sessions(dev: Dev) -> set[str]:
    """Return the administrator's live sessions beside the one this asks with."""
    with dev.person("admin") as admin:
        found: list[dict[str, Any]] = admin.get("/users/me/sessions").json()
        assert admin.post("/auth/logout").status_code == 204
    return {one["id"] for one in found if not one["current"]}


def test_command_ends_the_session_it_began(own: Dev, tmp_path: Path) -> None:
    settings = {"SB_URL": own.url, "SB_PASSWORD": own.passwords["admin"]}
    before = open_sessions(own)
    absent = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
    for words, status in ((("export",), 0), (("request", "show", absent), 1)):
        done = running.sb(*words, "--as", "admin@example.com", home=tmp_path, environ=settings)
        assert done.returncode == status
        assert open_sessions(own) == before


def test_command_leaves_the_session_of_a_token_open(own: Dev, tmp_path: Path) -> None:
    with own.person("admin") as admin:
        token = admin.headers["Authorization"].removeprefix("Bearer ")
        settings = {"SB_URL": own.url, "SB_TOKEN": token}
        assert running.sb("export", home=tmp_path, environ=settings).returncode == 0
        assert admin.get("/users/me").status_code == 200
        assert admin.post("/auth/logout").status_code == 204


def test_command_that_comes_too_often_is_told_how_long_to_wait(tmp_path: Path) -> None:
    with running.dev(tmp_path, tmp_path / "data", free_port(), SB_RATE_LOGIN="1") as dev:
        sign_in(dev.url, "admin@example.com", dev.passwords["admin"]).close()
        settings = {"SB_URL": dev.url, "SB_PASSWORD": dev.passwords["admin"]}
        done = running.sb("export", "--as", "admin@example.com", home=tmp_path, environ=settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("rate_limited: ")
    assert re.search(r"\n  try again in \d+ s\n$", done.stderr)
