"""The control plane's key: pinned when first seen; another is refused, a rotated ring is not."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sb.sealing import generate_keypair
from sb.secret import Secret
from sb_agent.identity import IdentityError
from sb_agent.providers.file import FileProvider
from sb_agent.settings import AgentSettings
from tests.agent import plane_double
from tests.agent.agents import launched, running, settings_for
from tests.agent.plane_double import CONNECTION, SECRET, PlaneDouble
from tests.agent.planted import OLD


@pytest.fixture
async def plane() -> AsyncIterator[PlaneDouble]:
    async with plane_double.serving(PlaneDouble()) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> FileProvider:
    found = FileProvider(tmp_path / "store.enc", tmp_path / "store.key")
    found.seed({"app/db": {"A": OLD}})
    return found


@pytest.fixture
async def settings(plane: PlaneDouble, store: FileProvider, tmp_path: Path) -> AgentSettings:
    """The settings of an agent that has enrolled and stopped again."""
    found = settings_for(plane, tmp_path)
    async with running(found, store):
        pass
    return found


async def test_another_key_is_refused_before_any_job(
    plane: PlaneDouble, store: FileProvider, settings: AgentSettings
) -> None:
    plane.keys = [generate_keypair()]
    claimed = len(plane.heard_of("claim"))
    plane.read_job()
    async with launched(settings, store) as agent:
        problem = await agent.ended()
    assert isinstance(problem, IdentityError)
    assert "another key" in str(problem)
    assert str(settings.identity_file) in str(problem)
    assert len(plane.heard_of("claim")) == claimed
    assert plane.posted == {}


async def test_another_key_in_the_enrolment_than_later_is_refused(
    plane: PlaneDouble, store: FileProvider, tmp_path: Path
) -> None:
    async def other(call: object) -> dict[str, object]:
        key = base64.b64encode(generate_keypair().public).decode()
        return {"public_key": key, "previous": []}

    plane.hooks["control_plane_key"] = other
    async with launched(settings_for(plane, tmp_path), store) as agent:
        assert isinstance(await agent.ended(), IdentityError)
    assert plane.heard_of("claim") == []


async def test_rotated_ring_that_still_knows_the_pinned_key_is_accepted(
    plane: PlaneDouble, store: FileProvider, settings: AgentSettings
) -> None:
    plane.keys = [generate_keypair(), generate_keypair(), plane.keys[0]]
    async with running(settings, store):
        assert (await plane.done(plane.read_job())).status == "succeeded"
    assert plane.posted == {"A": OLD.encode()}
    pinned = json.loads(settings.identity_file.read_bytes())["control_plane_key"]
    assert base64.b64decode(pinned) == plane.keys[-1].public


async def test_credential_of_the_environment_pins_the_first_key_it_sees(
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
        assert (await plane.done(plane.read_job())).status == "succeeded"
    plane.keys = [generate_keypair()]
    async with launched(settings, store) as agent:
        assert isinstance(await agent.ended(), IdentityError)


async def test_identity_file_of_another_agent_is_left_alone(
    plane: PlaneDouble, store: FileProvider, settings: AgentSettings, tmp_path: Path
) -> None:
    before = settings.identity_file.read_bytes()
    plane.agent_id = "5f0c2a34-0000-4000-8000-000000000001"
    other = settings_for(
        plane, tmp_path, agent_id=plane.agent_id, agent_secret=Secret(SECRET.encode())
    )
    async with running(other, store) as agent:
        assert agent.id == plane.agent_id
    assert settings.identity_file.read_bytes() == before
