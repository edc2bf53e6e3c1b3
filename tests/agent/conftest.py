"""Fixtures of the agent's tests; every test here fails when a planted value reaches a log."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from sb.secret import Secret
from sb_agent.providers.vault import VaultConfig, VaultProvider
from tests.agent.planted import MARK
from tests.agent.vault_double import VaultDouble, serving


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def _no_value_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    for record in (*caplog.get_records("setup"), *caplog.get_records("call")):
        fields = {key: value for key, value in vars(record).items() if key != "exc_info"}
        shown = f"{record.getMessage()} {fields}"
        if record.exc_info:
            shown += "".join(traceback.format_exception(*record.exc_info))
        assert MARK not in shown, f"a planted value was logged by {record.name}"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Whoever runs the tests may have Vault's variables, a token at home, or a proxy.
    for name in ("VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def vault(clock: Clock) -> Iterator[VaultDouble]:
    with serving(VaultDouble(clock)) as found:
        yield found


@pytest.fixture
def provider(vault: VaultDouble, clock: Clock) -> VaultProvider:
    """The provider as root, which needs no renewal."""
    token = Secret(vault.root.id.encode())
    return VaultProvider(VaultConfig(address=vault.url, token=token), clock=clock)
