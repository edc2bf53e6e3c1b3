"""KV version 2 through the provider: versions, compare-and-set, paths, and what errors become."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from sb.secret import Secret
from sb_agent.providers import (
    ConflictError,
    InvalidConfigError,
    ProviderError,
    ProviderPermissionError,
    SecretNotFoundError,
    ThrottledError,
    UnavailableError,
    check_config,
)
from sb_agent.providers.vault import VaultConfig, VaultProvider, open_provider
from tests.agent.authority import Authority
from tests.agent.conftest import Clock
from tests.agent.planted import NEW, OLD, assert_tells_nothing
from tests.agent.vault_double import VaultDouble, serving
from tests.agent.vault_kv import refused

BUNDLE = {"PASSWORD": OLD, "PORT": 5432, "TLS": True, "TAGS": ["a", {"b": None}]}


def limited(vault: VaultDouble, clock: Clock, **rules: set[str]) -> VaultProvider:
    """Return a provider whose token has these rights on `secret/<kind>/app/*` only."""
    token = vault.issue({f"secret/{kind}/app/*": rights for kind, rights in rules.items()})
    config = VaultConfig(address=vault.url, token=Secret(token.id.encode()))
    return VaultProvider(config, clock=clock)


def test_json_types_survive_reading_and_writing(provider: VaultProvider) -> None:
    assert provider.write("app/db", BUNDLE, expected=0, config={}) == 1
    found = provider.read("app/db", {})
    assert (found.values, found.version) == (BUNDLE, 1)
    assert [type(value) for value in found.values.values()] == [str, int, bool, list]


def test_written_secret_keeps_its_custom_metadata(
    provider: VaultProvider, vault: VaultDouble
) -> None:
    vault.ask("POST", "metadata/app/db", {"custom_metadata": {"owner": "payments"}})
    provider.write("app/db", {"A": OLD}, expected=0, config={})
    provider.write("app/db", {"A": NEW}, expected=1, config={})
    metadata = vault.ask("GET", "metadata/app/db")["data"]
    assert metadata["custom_metadata"] == {"owner": "payments"}
    assert metadata["current_version"] == 2


def test_every_write_names_the_version_it_expects(
    provider: VaultProvider, vault: VaultDouble
) -> None:
    vault.ask("POST", "config", {"cas_required": True})
    assert provider.write("app/db", {"A": OLD}, expected=0, config={}) == 1
    assert provider.write("app/db", {"A": NEW}, expected=1, config={}) == 2
    with pytest.raises(ConflictError) as caught:
        provider.write("app/db", {"A": NEW}, expected=1, config={})
    assert caught.value.retryable
    assert_tells_nothing(caught.value)


def test_one_of_two_writers_of_the_same_version_wins(provider: VaultProvider) -> None:
    provider.write("app/db", {"A": OLD}, expected=0, config={})
    start, outcomes = threading.Barrier(6), []

    def write() -> None:
        start.wait()
        try:
            outcomes.append(provider.write("app/db", {"A": NEW}, expected=1, config={}))
        except ConflictError:
            outcomes.append("conflict")

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["2", *["conflict"] * 5]


def test_soft_deleted_secret_is_absent_and_its_write_names_the_deleted_version(
    provider: VaultProvider, vault: VaultDouble
) -> None:
    vault.put("app/db", {"A": OLD})
    vault.put("app/db", {"A": OLD})
    vault.ask("DELETE", "data/app/db")
    with pytest.raises(SecretNotFoundError) as caught:
        provider.read("app/db", {})
    assert not caught.value.retryable
    assert provider.current_version("app/db", {}) == 2
    assert provider.write("app/db", {"A": NEW}, expected=2, config={}) == 3


def test_destroyed_secret_is_absent_and_its_write_names_the_destroyed_version(
    provider: VaultProvider, vault: VaultDouble
) -> None:
    vault.put("app/db", {"A": OLD})
    vault.ask("POST", "destroy/app/db", {"versions": [1]})
    with pytest.raises(SecretNotFoundError):
        provider.read("app/db", {})
    assert provider.current_version("app/db", {}) == 1
    assert provider.write("app/db", {"A": NEW}, expected=1, config={}) == 2


def test_key_with_metadata_only_is_absent_at_version_zero(
    provider: VaultProvider, vault: VaultDouble
) -> None:
    vault.ask("POST", "metadata/app/db", {"custom_metadata": {"owner": "payments"}})
    with pytest.raises(SecretNotFoundError):
        provider.read("app/db", {})
    assert provider.current_version("app/db", {}) == 0
    assert provider.write("app/db", {"A": NEW}, expected=0, config={}) == 1


def test_policy_for_data_alone_is_enough(vault: VaultDouble, clock: Clock) -> None:
    provider = limited(vault, clock, data={"create", "read", "update"})
    assert provider.current_version("app/db", {}) == 0
    assert provider.write("app/db", {"A": OLD}, expected=0, config={}) == 1
    vault.ask("DELETE", "data/app/db")
    assert provider.current_version("app/db", {}) == 1
    assert provider.write("app/db", {"A": NEW}, expected=1, config={}) == 2
    assert provider.read("app/db", {}).values == {"A": NEW}


def test_missing_right_is_permission_denied_and_final(vault: VaultDouble, clock: Clock) -> None:
    provider = limited(vault, clock, data={"read"})
    vault.put("app/db", {"A": OLD})
    assert provider.read("app/db", {}).version == 1
    for call in (
        lambda: provider.write("app/db", {"A": NEW}, expected=1, config={}),
        lambda: provider.read("other/db", {}),
    ):
        with pytest.raises(ProviderPermissionError) as caught:
            call()
        assert (caught.value.code, caught.value.retryable) == ("permission_denied", False)
        assert_tells_nothing(caught.value)


def test_sealed_vault_is_unavailable_and_may_be_tried_again(
    provider: VaultProvider, vault: VaultDouble
) -> None:
    vault.put("app/db", {"A": OLD})
    vault.sealed = True
    for _ in range(2):
        with pytest.raises(UnavailableError) as caught:
            provider.read("app/db", {})
        assert caught.value.retryable
    vault.sealed = False
    assert provider.read("app/db", {}).values == {"A": OLD}


@pytest.mark.parametrize(
    ("reply", "kind", "retryable"),
    [
        (refused(429, "rate limit quota exceeded"), ThrottledError, True),
        (refused(500, "internal error"), UnavailableError, True),
        (refused(502, "bad gateway"), UnavailableError, True),
        (refused(412, "required index state not present"), UnavailableError, True),
        (refused(400, f"bad thing {NEW}"), InvalidConfigError, False),
        (refused(404, "no handler for route"), SecretNotFoundError, False),
        ((307, ""), UnavailableError, True),
        ((200, f"<html>{NEW}</html>"), UnavailableError, True),
        ((503, f"<html>{NEW}</html>"), UnavailableError, True),
    ],
)
def test_answers_of_vault_become_errors_without_their_text(
    provider: VaultProvider,
    vault: VaultDouble,
    reply: Any,
    kind: type[ProviderError],
    retryable: bool,
) -> None:
    vault.put("app/db", {"A": OLD})
    provider.read("app/db", {})
    for call in (
        lambda: provider.read("app/db", {}),
        lambda: provider.write("app/db", {"A": NEW}, expected=1, config={}),
    ):
        vault.next_replies = [reply]
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind
        assert caught.value.retryable is retryable
        assert_tells_nothing(caught.value)


def test_vault_that_is_not_there_is_unavailable() -> None:
    with serving(VaultDouble()) as vault:
        config = VaultConfig(address=vault.url, token=Secret(vault.root.id.encode()))
    provider = VaultProvider(config)
    with pytest.raises(UnavailableError) as caught:
        provider.write("app/db", {"A": NEW}, expected=0, config={})
    assert_tells_nothing(caught.value)


def test_mount_and_prefix_come_from_the_agent_or_else_the_job(
    vault: VaultDouble, clock: Clock
) -> None:
    vault.mount("team/kv")
    vault.mount("kv")
    config = VaultConfig(
        address=vault.url,
        mount="/team/kv/",
        prefix="/prod/",
        token=Secret(vault.root.id.encode()),
    )
    provider = VaultProvider(config, clock=clock)
    provider.write("/app/db/", {"A": OLD}, expected=0, config={})
    provider.write("app/db", {"A": OLD}, expected=0, config={"kvMount": "kv", "kvPrefix": "x/y"})
    provider.write("app/db", {"A": OLD}, expected=0, config={"kvMount": "kv", "kvPrefix": ""})
    assert vault.paths("POST") == [
        "team/kv/data/prod/app/db",
        "kv/data/x/y/app/db",
        "kv/data/app/db",
    ]


@pytest.mark.parametrize(
    ("ref", "config"),
    [
        ("../sys/policies", {}),
        ("app/../../metadata/x", {}),
        ("app//db", {}),
        ("", {}),
        ("app/db", {"kvMount": "secret/../auth"}),
        ("app/db", {"kvMount": "./secret"}),
        ("app/db", {"kvPrefix": "../metadata"}),
        ("app/db", {"kvPrefix": "a//b"}),
    ],
)
def test_paths_that_leave_their_place_never_reach_vault(
    provider: VaultProvider, vault: VaultDouble, ref: str, config: dict[str, str]
) -> None:
    for call in (
        lambda: provider.read(ref, config),
        lambda: provider.write(ref, {"A": NEW}, expected=0, config=config),
        lambda: provider.current_version(ref, config),
    ):
        with pytest.raises(InvalidConfigError):
            call()
    assert vault.calls == []


@pytest.mark.parametrize("ref", ["app/a b", "app/ünï", "app/100%", "app/?version=1", "app/#x"])
def test_unusual_names_reach_vault_unchanged(
    provider: VaultProvider, vault: VaultDouble, ref: str
) -> None:
    provider.write(ref, {"A": OLD}, expected=0, config={})
    assert provider.read(ref, {}).values == {"A": OLD}
    assert vault.paths("POST") == [f"secret/data/{ref}"]


def test_job_cannot_steer_where_or_as_whom(provider: VaultProvider) -> None:
    assert check_config(provider, {"kvMount": "a", "kvPrefix": "b"}) == {
        "kvMount": "a",
        "kvPrefix": "b",
    }
    for key in ("address", "namespace", "token", "kubernetesRole", "kubernetesTokenPath"):
        with pytest.raises(InvalidConfigError, match=key):
            check_config(provider, {key: NEW})
    with pytest.raises(InvalidConfigError) as caught:
        check_config(provider, {"kvMount": [NEW]})
    assert_tells_nothing(caught.value)


def test_namespace_of_the_agent_goes_with_every_call(vault: VaultDouble, clock: Clock) -> None:
    vault.mount("secret", namespace="team-a")
    vault.put("app/db", {"A": "of the root namespace"})
    token = vault.issue({"*": {"create", "read", "update"}}, namespace="team-a")
    env = {
        "SB_VAULT_ADDR": vault.url,
        "SB_VAULT_TOKEN": token.id,
        "SB_VAULT_NAMESPACE": "team-a",
    }
    provider = open_provider(env)
    with pytest.raises(SecretNotFoundError):
        provider.read("app/db", {})
    provider.write("app/db", {"A": OLD}, expected=0, config={})
    assert {call.namespace for call in vault.calls} == {"team-a"}
    outside = open_provider({key: env[key] for key in ("SB_VAULT_ADDR", "SB_VAULT_TOKEN")})
    with pytest.raises(ProviderPermissionError):
        outside.read("app/db", {})


def test_private_authority_of_vault_is_trusted_where_it_is_named(
    clock: Clock, tmp_path: Path
) -> None:
    ours, other = Authority(tmp_path), Authority(tmp_path)
    with serving(VaultDouble(clock), tls=ours.server_context("127.0.0.1")) as vault:
        vault.put("app/db", {"A": OLD})
        env = {"SB_VAULT_ADDR": vault.url, "SB_VAULT_TOKEN": vault.root.id}
        found = open_provider({**env, "SB_VAULT_CACERT": str(ours.file)}).read("app/db", {})
        assert found.values == {"A": OLD}
        for wrong in ({}, {"SB_VAULT_CACERT": str(other.file)}):
            with pytest.raises(UnavailableError) as caught:
                open_provider({**env, **wrong}).read("app/db", {})
            assert caught.value.__cause__ is None


def test_settings_of_the_provider_name_what_is_missing() -> None:
    for env, missing in (
        ({}, "SB_VAULT_ADDR"),
        ({"SB_VAULT_ADDR": "https://v"}, "SB_VAULT_TOKEN"),
    ):
        with pytest.raises(InvalidConfigError, match=missing):
            open_provider(env)
