"""Who an agent is: enrolled once, kept in a private file, never a token spent in vain."""

from __future__ import annotations

import base64
import json
import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sb.secret import Secret
from sb_agent import private_files
from sb_agent.identity import IdentityError
from sb_agent.providers.file import FileProvider
from tests.agent import plane_double
from tests.agent.agents import launched, running, settings_for
from tests.agent.plane_double import CONNECTION, SECRET, TOKEN, Call, PlaneDouble


@pytest.fixture
async def plane() -> AsyncIterator[PlaneDouble]:
    async with plane_double.serving(PlaneDouble()) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> FileProvider:
    return FileProvider(tmp_path / "store.enc", tmp_path / "store.key")


async def refused(settings: Any, store: FileProvider) -> str:
    """Return the message of the IdentityError the agent ends with."""
    async with launched(settings, store) as agent:
        problem = await agent.ended()
    assert isinstance(problem, IdentityError)
    assert TOKEN not in str(problem)
    assert SECRET not in str(problem)
    return str(problem)


async def test_enrolment_keeps_the_identity_in_a_private_file(
    plane: PlaneDouble, store: FileProvider, tmp_path: Path
) -> None:
    settings = settings_for(plane, tmp_path, region="eu-1", cluster_name="blue")
    async with running(settings, store) as agent:
        assert agent.id == plane.agent_id
        (enrolled,) = plane.heard_of("enroll")
    path = settings.identity_file
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]
    assert json.loads(path.read_bytes()) == {
        "agent_id": plane.agent_id,
        "agent_secret": SECRET,
        "control_plane_key": base64.b64encode(plane.keys[0].public).decode(),
        "provider_connection_id": CONNECTION,
    }
    assert {**enrolled.body, "agent_version": "", "public_key": ""} == {
        "enrollment_token": TOKEN,
        "agent_name": "agent-1",
        "provider_type": "file",
        "cluster_name": "blue",
        "region": "eu-1",
        "agent_version": "",
        "capabilities": ["read", "patch"],
        "public_key": "",
        "public_key_algorithm": "x25519",
    }
    assert base64.b64decode(enrolled.body["public_key"]) == plane.agent_key


async def test_restart_uses_the_file_and_spends_no_token(
    plane: PlaneDouble, store: FileProvider, tmp_path: Path
) -> None:
    plane.tokens = {TOKEN, "another"}
    async with running(settings_for(plane, tmp_path), store):
        pass
    again = settings_for(plane, tmp_path, enrollment_token=Secret(b"another"))
    async with running(again, store) as agent:
        assert agent.id == plane.agent_id
    assert len(plane.heard_of("enroll")) == 1
    assert plane.tokens == {"another"}


async def test_unwritable_file_costs_no_token(
    plane: PlaneDouble, store: FileProvider, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a directory")
    settings = settings_for(plane, tmp_path, identity_file=tmp_path / "file" / "identity.json")
    message = await refused(settings, store)
    assert "cannot be" in message
    assert plane.calls == []
    assert plane.tokens == {TOKEN}


async def test_identity_path_that_is_a_directory_costs_no_token(
    plane: PlaneDouble, store: FileProvider, tmp_path: Path
) -> None:
    (tmp_path / "identity" / "identity.json").mkdir(parents=True)
    await refused(settings_for(plane, tmp_path), store)
    assert plane.tokens == {TOKEN}


async def test_file_that_became_unwritable_says_that_the_token_is_spent(
    plane: PlaneDouble, store: FileProvider, tmp_path: Path
) -> None:
    settings = settings_for(plane, tmp_path)

    async def replace_folder(call: Call) -> None:
        shutil.rmtree(settings.identity_file.parent)
        settings.identity_file.parent.write_text("not a directory")

    plane.hooks["enroll"] = replace_folder
    message = await refused(settings, store)
    assert "token is spent" in message
    assert plane.agent_id in message


def test_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    private_files.replace(path, b"first")
    first = path.stat().st_ino
    private_files.replace(path, b"second")
    assert path.stat().st_ino != first
    assert path.read_bytes() == b"second"
    blocked = tmp_path / "folder"
    (blocked / "inside").mkdir(parents=True)
    with pytest.raises(OSError):
        private_files.replace(blocked, b"third")
    assert {each.name for each in tmp_path.iterdir()} == {"identity.json", "folder"}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "enrollment_token_invalid"),
        (409, "enrollment_token_already_consumed"),
        (403, "enrollment_token_revoked"),
        (409, "agent_name_taken"),
        (400, "provider_type_mismatch"),
    ],
)
async def test_refused_enrolment_ends_the_agent_with_its_code(
    plane: PlaneDouble, store: FileProvider, tmp_path: Path, status: int, code: str
) -> None:
    plane.refuse("enroll", status, code)
    settings = settings_for(plane, tmp_path)
    assert await refused(settings, store) == f"enrolment was refused: {code}"
    assert len(plane.heard_of("enroll")) == 1
    assert not settings.identity_file.exists()


async def test_refusal_that_is_no_code_is_not_repeated(
    plane: PlaneDouble, store: FileProvider, tmp_path: Path
) -> None:
    plane.refuse("enroll", 400, f"<b>{TOKEN}</b> is wrong")
    assert await refused(settings_for(plane, tmp_path), store) == "enrolment was refused: unnamed"


async def test_enrolment_waits_for_a_control_plane_that_is_away(
    plane: PlaneDouble, store: FileProvider, tmp_path: Path
) -> None:
    plane.refuse("enroll", 503, "unavailable", times=1)
    async with running(settings_for(plane, tmp_path), store) as agent:
        assert agent.id == plane.agent_id
    first, second = plane.heard_of("enroll")
    assert second.at - first.at >= 0.5


async def test_no_identity_and_no_token_says_what_to_give(
    plane: PlaneDouble, store: FileProvider, tmp_path: Path
) -> None:
    for extra in ({"enrollment_token": None}, {"enrollment_enabled": False}):
        message = await refused(settings_for(plane, tmp_path, **extra), store)
        assert "SB_AGENT_ID" in message
        assert "SB_ENROLLMENT_TOKEN" in message
    assert plane.calls == []


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"agent_id": 5}', '{"agent_id": "x"}', '{"agent_id":"x","agent_secret":""}'],
)
async def test_damaged_file_is_no_reason_to_enrol_again(
    plane: PlaneDouble, store: FileProvider, tmp_path: Path, content: str
) -> None:
    settings = settings_for(plane, tmp_path)
    private_files.replace(settings.identity_file, content.encode())
    assert str(settings.identity_file) in await refused(settings, store)
    assert plane.calls == []


async def test_credential_of_the_environment_wins_and_stays_outside_the_file(
    plane: PlaneDouble, store: FileProvider, tmp_path: Path
) -> None:
    settings = settings_for(
        plane,
        tmp_path,
        agent_id=plane.agent_id,
        agent_secret=Secret(SECRET.encode()),
        provider_connection_id=CONNECTION,
    )
    async with running(settings, store):
        pass
    assert plane.heard_of("enroll") == []
    kept = settings.identity_file.read_text()
    assert SECRET not in kept
    assert json.loads(kept)["control_plane_key"]
    without = settings_for(plane, tmp_path)
    assert "no agent_secret" in await refused(without, store)


async def test_file_open_to_others_is_used_with_a_warning(
    plane: PlaneDouble, store: FileProvider, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(plane, tmp_path)
    async with running(settings, store):
        pass
    settings.identity_file.chmod(0o644)
    async with running(settings, store):
        pass
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "the identity file is open to others" in warned
