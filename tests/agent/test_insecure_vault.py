"""Where Vault's token may travel in clear, and which mounts a job may name."""

from __future__ import annotations

import pytest

from sb_agent.providers import InvalidConfigError
from sb_agent.providers.vault import VaultConfig, VaultProvider
from sb_agent.settings import AgentSettingsError, load

BASE = {"SB_CP_ENDPOINT": "https://bridge.example.com", "SB_VAULT_TOKEN": "t"}


@pytest.mark.parametrize("host", ["vault.prod:8200", "10.0.0.7:8200"])
def test_load_with_vault_in_clear_elsewhere_is_refused(host: str) -> None:
    with pytest.raises(AgentSettingsError) as caught:
        load({**BASE, "SB_VAULT_ADDR": f"http://{host}"})
    assert "SB_VAULT_ADDR" in str(caught.value)
    load({**BASE, "SB_VAULT_ADDR": f"http://{host}", "SB_INSECURE_TRANSPORT": "true"})


@pytest.mark.parametrize("host", ["127.0.0.1:8200", "localhost:8200", "[::1]:8200"])
def test_load_with_vault_beside_the_agent_is_accepted(host: str) -> None:
    load({**BASE, "SB_VAULT_ADDR": f"http://{host}"})


@pytest.mark.parametrize("mount", ["secret/data/other", "secret/metadata", "sys", "auth/token"])
def test_read_from_a_mount_that_is_none_is_refused(mount: str) -> None:
    provider = VaultProvider(VaultConfig(address="http://127.0.0.1:1"))
    with pytest.raises(InvalidConfigError):
        provider.read("x", {"kvMount": mount})
