"""The agent's settings: every problem told at once, none with a secret in it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from sb_agent.settings import AgentSettingsError, load
from tests.agent.planted import MARK, assert_tells_nothing

URL = {"SB_CP_ENDPOINT": "https://bridge.example.com"}
AGENT_ID = "0b7b4a52-6d5c-4f0e-8f6a-0d7b1c2e3f40"


def problems(env: dict[str, str]) -> list[str]:
    with pytest.raises(AgentSettingsError) as caught:
        load(env)
    assert_tells_nothing(caught.value)
    return caught.value.problems


def test_every_problem_is_told_at_once_and_none_shows_a_secret(tmp_path: Path) -> None:
    found = problems(
        {
            "SB_CP_ENDPOINT": f"ftp://user:{MARK}@host",
            "SB_INSECURE_TRANSPORT": "perhaps",
            "SB_CP_CA_FILE": str(tmp_path / "absent.pem"),
            "SB_AGENT_ID": "not-an-id",
            "SB_ENROLLMENT_TOKEN": MARK,
            "SB_ENROLLMENT_TOKEN_FILE": str(tmp_path / "token"),
            "SB_VAULT_TOKEN_FILE": str(tmp_path / "absent"),
            "SB_AGENT_PRIVATE_KEY": MARK,
            "SB_AGENT_PRIVATE_KEY_FILE": "/keys/agent.key",
            "SB_PROVIDER_TYPE": "aws-sm",
            "SB_HEARTBEAT_INTERVAL": "soon",
            "SB_CLAIM_INTERVAL": "0s",
            "SB_CLAIM_CONCURRENCY": "0",
            "SB_SHUTDOWN_GRACE": "-1s",
            "SB_LOCAL_ADDR": "nowhere",
            "LOG_LEVEL": "loud",
        }
    )
    named = {problem.split(":")[0].split(" ")[0] for problem in found}
    assert named == {
        "SB_CP_ENDPOINT",
        "SB_INSECURE_TRANSPORT",
        "SB_CP_CA_FILE",
        "SB_AGENT_ID",
        "SB_ENROLLMENT_TOKEN",
        "SB_VAULT_TOKEN_FILE",
        "SB_AGENT_PRIVATE_KEY",
        "SB_PROVIDER_TYPE",
        "SB_HEARTBEAT_INTERVAL",
        "SB_CLAIM_INTERVAL",
        "SB_CLAIM_CONCURRENCY",
        "SB_SHUTDOWN_GRACE",
        "SB_LOCAL_ADDR",
        "LOG_LEVEL",
    }


def test_message_lists_every_problem_on_its_own_line() -> None:
    with pytest.raises(AgentSettingsError) as caught:
        load({"LOG_LEVEL": "loud"})
    first, *lines = str(caught.value).splitlines()
    assert first.endswith(":")
    assert len(lines) == 2
    assert any("SB_CP_ENDPOINT" in line for line in lines)


def test_endpoint_alone_is_enough_and_defaults_are_documented_ones() -> None:
    found = load(URL)
    assert found.cp_endpoint == "https://bridge.example.com"
    assert (found.provider_type, found.enrollment_enabled) == ("vault", True)
    assert found.identity_file == Path("/etc/secrets-bridge/identity.json")
    assert (found.heartbeat_interval_seconds, found.claim_interval_seconds) == (30, 5)
    assert (found.claim_concurrency, found.shutdown_grace_seconds) == (4, 15)
    assert found.local_addr == "127.0.0.1:8090"
    assert found.agent_name


def test_plain_http_needs_to_be_asked_for() -> None:
    env = {"SB_CP_ENDPOINT": "http://localhost:8080"}
    (problem,) = problems(env)
    assert problem.startswith("SB_CP_ENDPOINT: must be https://")
    assert len(problems({**env, "SB_INSECURE_TRANSPORT": "false"})) == 1
    assert load({**env, "SB_INSECURE_TRANSPORT": "true"}).insecure_transport


@pytest.mark.parametrize("given", [{"SB_AGENT_ID": AGENT_ID}, {"SB_AGENT_SECRET": MARK}])
def test_half_a_credential_is_refused(given: dict[str, str]) -> None:
    assert problems({**URL, **given}) == ["SB_AGENT_ID and SB_AGENT_SECRET go together"]


@pytest.mark.parametrize(
    "url",
    [
        "bridge.example.com",
        "https://",
        "https://user:pw@host",
        "https://host?x=1",
        "https://host#x",
        "https://ho st",
    ],
)
def test_address_that_is_none_is_refused(url: str) -> None:
    (problem,) = problems({"SB_CP_ENDPOINT": url})
    assert problem == "SB_CP_ENDPOINT: write an address like https://bridge.example.com"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("1.5s", 1.5), ("1m1s", 61)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert load({**URL, "SB_HEARTBEAT_INTERVAL": text}).heartbeat_interval_seconds == seconds


@pytest.mark.parametrize("text", ["30", "s", "1d", "1s1m", "-1s", "1e3s", "1 s", "0s", "٣s"])
def test_durations_that_are_none_are_refused(text: str) -> None:
    (problem,) = problems({**URL, "SB_HEARTBEAT_INTERVAL": text})
    assert problem.startswith("SB_HEARTBEAT_INTERVAL: ")


def test_credentials_come_from_files_without_their_line_ends(tmp_path: Path) -> None:
    for name in ("secret", "token", "vault"):
        (tmp_path / name).write_text(f"{MARK}-{name}\n")
    found = load(
        {
            **URL,
            "SB_AGENT_ID": AGENT_ID.upper(),
            "SB_AGENT_SECRET_FILE": str(tmp_path / "secret"),
            "SB_ENROLLMENT_TOKEN_FILE": str(tmp_path / "token"),
            "SB_VAULT_TOKEN_FILE": str(tmp_path / "vault"),
        }
    )
    assert found.agent_id == AGENT_ID
    assert found.agent_secret is not None
    assert found.agent_secret.reveal().decode() == f"{MARK}-secret"
    assert found.enrollment_token is not None
    assert found.enrollment_token.reveal().decode() == f"{MARK}-token"
    assert found.provider_env == {"SB_VAULT_TOKEN": f"{MARK}-vault"}


def test_file_without_text_counts_as_no_credential(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    env = {**URL, "SB_AGENT_ID": AGENT_ID, "SB_AGENT_SECRET_FILE": str(tmp_path / "secret")}
    assert problems(env) == ["SB_AGENT_ID and SB_AGENT_SECRET go together"]


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_private_key_is_exactly_32_bytes(length: int) -> None:
    text = base64.b64encode(b"k" * length).decode() or "="
    (problem,) = problems({**URL, "SB_AGENT_PRIVATE_KEY": text})
    assert problem == "SB_AGENT_PRIVATE_KEY: write 32 bytes in standard base64"


def test_settings_show_no_secret_when_printed() -> None:
    found = load(
        {
            **URL,
            "SB_AGENT_ID": AGENT_ID,
            "SB_AGENT_SECRET": MARK,
            "SB_ENROLLMENT_TOKEN": MARK,
            "SB_VAULT_TOKEN": MARK,
        }
    )
    assert MARK not in repr(found)


def test_only_the_providers_own_variables_reach_it() -> None:
    env = {
        **URL,
        "SB_VAULT_ADDR": "https://vault",
        "SB_FILE_STORE_PATH": "/store",
        "VAULT_TOKEN": MARK,
        "SB_AGENT_NAME": "a",
    }
    assert set(load(env).provider_env) == {"SB_VAULT_ADDR", "SB_FILE_STORE_PATH"}


@pytest.mark.parametrize(
    ("text", "expected"), [("", ""), ("0.0.0.0:8090", "0.0.0.0:8090"), ("[::1]:1", "[::1]:1")]
)
def test_probe_address_may_be_anything_to_listen_on_or_empty(text: str, expected: str) -> None:
    assert load({**URL, "SB_LOCAL_ADDR": text}).local_addr == expected


@pytest.mark.parametrize("name", ["SB_AGENT_ID", "SB_PROVIDER_TYPE", "SB_CLAIM_CONCURRENCY"])
def test_empty_variable_counts_as_unset(name: str) -> None:
    assert load({**URL, name: ""}) == load(URL)


def test_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, Any] = {**URL, "SB_CLUSTER_NAME": "blue", "SB_REGION": "eu-1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    found = load()
    assert (found.cp_endpoint, found.cluster_name, found.region) == (
        "https://bridge.example.com",
        "blue",
        "eu-1",
    )
