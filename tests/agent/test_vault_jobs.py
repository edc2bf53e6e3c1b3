"""Jobs of an agent whose secrets are in Vault: from the claim to the answer of Vault and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sb_agent.providers import open_provider
from tests.agent import plane_double
from tests.agent.agents import running, settings_for
from tests.agent.plane_double import PlaneDouble
from tests.agent.planted import MARK, NEW, OLD, OTHER
from tests.agent.vault_double import VaultDouble
from tests.agent.vault_kv import refused

DATA = "secret/data/app/db"
VAULT: dict[str, Any] = {"target_provider_type": "vault"}


@pytest.fixture
async def plane(vault: VaultDouble, tmp_path: Path) -> AsyncIterator[PlaneDouble]:
    vault.put("app/db", {"A": OLD, "N": 1})
    env = {"SB_VAULT_ADDR": vault.url, "SB_VAULT_TOKEN": vault.root.id}
    async with plane_double.serving(PlaneDouble()) as found:
        settings = settings_for(found, tmp_path, provider_type="vault")
        async with running(settings, open_provider("vault", env)):
            yield found


def current(vault: VaultDouble) -> Any:
    return vault.ask("GET", "data/app/db")["data"]


async def test_conflict_costs_another_round_and_loses_nobodys_write(
    plane: PlaneDouble, vault: VaultDouble
) -> None:
    vault.once_before("POST", DATA, lambda: vault.put("app/db", {"A": OLD, "N": 2, "B": OTHER}))
    done = await plane.done(plane.patch_job({"A": NEW}, payload=VAULT))
    assert done.status == "succeeded"
    assert done.result is not None
    assert done.result.version == "3"
    assert current(vault)["data"] == {"A": NEW, "N": 2, "B": OTHER}
    writes = [call for call in vault.calls if call.method == "POST"]
    assert [call.body["options"] for call in writes] == [{"cas": 1}, {"cas": 2}]
    assert len(plane.heard_of("fetch_wrap")) == 1


async def test_endless_conflict_fails_the_job_and_may_be_tried_again(
    plane: PlaneDouble, vault: VaultDouble
) -> None:
    for number in range(4):
        data = {"A": OLD, "N": number}
        vault.once_before("POST", DATA, lambda data=data: vault.put("app/db", data))
    done = await plane.done(plane.patch_job({"A": NEW}, payload=VAULT))
    assert (done.status, done.retryable) == ("failed", True)
    assert done.error == "vault: conflict: the secret was changed meanwhile"
    assert current(vault)["data"] == {"A": OLD, "N": 3}


async def test_deleted_secret_is_written_anew_over_its_deleted_version(
    plane: PlaneDouble, vault: VaultDouble
) -> None:
    vault.ask("DELETE", "data/app/db")
    done = await plane.done(plane.patch_job({"A": NEW}, payload=VAULT))
    assert done.status == "succeeded"
    found = current(vault)
    assert (found["data"], found["metadata"]["version"]) == ({"A": NEW}, 2)
    (write,) = [call for call in vault.calls if call.method == "POST"]
    assert write.body["options"] == {"cas": 1}


async def test_deletion_between_read_and_write_does_not_bring_old_keys_back(
    plane: PlaneDouble, vault: VaultDouble
) -> None:
    def replaced() -> None:
        vault.put("app/db", {"A": OLD})
        vault.ask("DELETE", "data/app/db")

    vault.once_before("POST", DATA, replaced)
    assert (await plane.done(plane.patch_job({"B": NEW}, payload=VAULT))).status == "succeeded"
    assert current(vault)["data"] == {"B": NEW}


@pytest.mark.parametrize(
    ("reply", "error", "retryable"),
    [
        (refused(429, "rate limit quota exceeded"), "vault: throttled: ", True),
        (refused(503, "Vault is sealed"), "vault: unavailable: ", True),
        (refused(403, f"denied {MARK}"), "vault: permission_denied: ", False),
        (refused(400, f"wrong {MARK}"), "vault: invalid_config: ", False),
    ],
)
async def test_trouble_with_vault_is_reported_with_whether_to_try_again(
    plane: PlaneDouble, vault: VaultDouble, reply: Any, error: str, retryable: bool
) -> None:
    await plane.done(plane.read_job(payload=VAULT))
    for job in (plane.read_job, lambda **rest: plane.patch_job({"A": NEW}, **rest)):
        vault.next_replies = [reply]
        done = await plane.done(job(payload=VAULT))
        assert (done.status, done.retryable) == ("failed", retryable)
        assert str(done.error).startswith(error)
        assert MARK not in str(done.error)
    assert plane.heard_of("fetch_wrap") == []


async def test_routing_keys_of_a_job_choose_mount_and_prefix(
    plane: PlaneDouble, vault: VaultDouble
) -> None:
    vault.mount("team")
    vault.put("prod/app/db", {"A": OTHER}, mount="team")
    config = {"kvMount": "team", "kvPrefix": "prod"}
    payload = {**VAULT, "target_provider_config": config}
    assert (await plane.done(plane.read_job(payload=payload))).status == "succeeded"
    assert plane.posted == {"A": OTHER.encode()}


async def test_job_cannot_steer_the_agent_to_another_vault(
    plane: PlaneDouble, vault: VaultDouble
) -> None:
    for key in ("address", "token", "namespace", "kubernetesRole"):
        payload = {**VAULT, "target_provider_config": {key: f"http://{MARK}"}}
        done = await plane.done(plane.read_job(payload=payload))
        assert (done.status, done.retryable) == ("failed", False)
        assert key in str(done.error)
        assert MARK not in str(done.error)
    assert DATA not in vault.paths()


async def test_idle_agent_looks_after_its_token_without_a_job(
    plane: PlaneDouble, vault: VaultDouble
) -> None:
    await plane.heard("claim")
    await plane.done(plane.read_job(payload=VAULT))
    assert vault.paths()[0] == "auth/token/lookup-self"
    assert vault.paths().count("auth/token/lookup-self") == 1
