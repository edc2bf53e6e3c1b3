"""As whom the provider speaks to Vault: tokens renewed in time, logins repeated, no token lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sb.secret import Secret
from sb_agent.providers import (
    AuthFailedError,
    ProviderPermissionError,
    ThrottledError,
    UnavailableError,
)
from sb_agent.providers.vault import (
    SERVICE_ACCOUNT_TOKEN,
    VaultConfig,
    VaultProvider,
    open_provider,
)
from tests.agent.conftest import Clock
from tests.agent.planted import MARK, OLD, assert_tells_nothing
from tests.agent.vault_double import ALL, KubernetesRole, Token, VaultDouble
from tests.agent.vault_kv import refused

APP = {"secret/data/app/*": ALL}
LOOKUP, RENEW, LOGIN = "auth/token/lookup-self", "auth/token/renew-self", "auth/kubernetes/login"
JWT = f"{MARK}-jwt-1"


@pytest.fixture(autouse=True)
def _secret_to_read(vault: VaultDouble) -> None:
    vault.put("app/db", {"A": OLD})


def by_token(vault: VaultDouble, clock: Clock, token: Token) -> VaultProvider:
    config = VaultConfig(address=vault.url, token=Secret(token.id.encode()))
    return VaultProvider(config, clock=clock)


def by_kubernetes(vault: VaultDouble, clock: Clock, jwt_file: Path) -> VaultProvider:
    config = VaultConfig(address=vault.url, kubernetes_role="agent", service_account_token=jwt_file)
    return VaultProvider(config, clock=clock)


@pytest.fixture
def jwt_file(vault: VaultDouble, tmp_path: Path) -> Path:
    vault.roles["kubernetes", "agent"] = KubernetesRole(rules=APP, jwts={JWT}, ttl=600)
    path = tmp_path / "jwt"
    path.write_text(f"{JWT}\n")
    return path


def read(provider: VaultProvider) -> int:
    return provider.read("app/db", {}).version


def test_root_token_is_looked_up_once_and_never_renewed(
    provider: VaultProvider, vault: VaultDouble, clock: Clock
) -> None:
    for _ in range(3):
        read(provider)
        clock.advance(10**6)
    assert vault.paths().count(LOOKUP) == 1
    assert RENEW not in vault.paths()


def test_token_is_renewed_at_half_its_life_and_outlives_it(
    vault: VaultDouble, clock: Clock
) -> None:
    provider = by_token(vault, clock, vault.issue(APP, ttl=100))
    read(provider)
    clock.advance(20)
    read(provider)
    assert RENEW not in vault.paths()
    for _ in range(6):
        clock.advance(51)
        read(provider)
    assert vault.paths().count(RENEW) == 6
    assert vault.paths().count(LOOKUP) == 1


def test_token_of_an_idle_agent_is_kept_alive_without_a_job(
    vault: VaultDouble, clock: Clock
) -> None:
    provider = by_token(vault, clock, vault.issue(APP, ttl=100))
    for _ in range(40):
        provider.keep_alive()
        clock.advance(15)
    assert vault.paths("GET") == [LOOKUP]
    assert 8 <= vault.paths().count(RENEW) <= 13
    assert read(provider) == 1


def test_kubernetes_login_waits_for_a_job(vault: VaultDouble, clock: Clock, jwt_file: Path) -> None:
    provider = by_kubernetes(vault, clock, jwt_file)
    provider.keep_alive()
    assert vault.calls == []


def test_token_that_cannot_be_renewed_works_until_it_ends(vault: VaultDouble, clock: Clock) -> None:
    provider = by_token(vault, clock, vault.issue(APP, ttl=100, renewable=False))
    read(provider)
    clock.advance(90)
    read(provider)
    assert RENEW not in vault.paths()
    clock.advance(11)
    with pytest.raises(ProviderPermissionError) as caught:
        read(provider)
    assert_tells_nothing(caught.value)


def test_token_at_the_end_of_its_longest_life_is_not_renewed_for_ever(
    vault: VaultDouble, clock: Clock
) -> None:
    provider = by_token(vault, clock, vault.issue(APP, ttl=100, max_ttl=160))
    read(provider)
    clock.advance(80)
    read(provider)
    clock.advance(70)
    read(provider)
    assert 1 <= vault.paths().count(RENEW) <= 3
    clock.advance(11)
    with pytest.raises(ProviderPermissionError):
        read(provider)


@pytest.mark.parametrize(
    "reply", [refused(503, "Vault is sealed"), refused(403, "permission denied"), (307, "")]
)
def test_renewal_that_fails_costs_no_call_and_is_tried_again(
    vault: VaultDouble, clock: Clock, reply: tuple[int, dict[str, list[str]]]
) -> None:
    provider = by_token(vault, clock, vault.issue(APP, ttl=100))
    read(provider)
    clock.advance(55)
    vault.next_replies = [reply]
    assert read(provider) == 1
    read(provider)
    assert vault.paths().count(RENEW) == 1
    clock.advance(20)
    read(provider)
    assert vault.paths().count(RENEW) == 2
    clock.advance(45)
    assert read(provider) == 1


def test_token_that_may_not_look_at_itself_is_used_as_it_is(
    vault: VaultDouble, clock: Clock
) -> None:
    provider = by_token(vault, clock, vault.issue(APP, ttl=100, default_policy=False))
    assert read(provider) == 1
    clock.advance(60)
    assert read(provider) == 1


def test_dead_token_is_permission_denied_without_its_text(vault: VaultDouble, clock: Clock) -> None:
    dead = Token(id=f"{MARK}.dead", rules={})
    with pytest.raises(ProviderPermissionError) as caught:
        read(by_token(vault, clock, dead))
    assert_tells_nothing(caught.value)


def test_vault_away_at_the_first_call_is_asked_again_at_the_next(
    vault: VaultDouble, clock: Clock
) -> None:
    provider = by_token(vault, clock, vault.issue(APP, ttl=100))
    for reply, kind in (
        (refused(503, "Vault is sealed"), UnavailableError),
        (refused(429, "rate limit quota exceeded"), ThrottledError),
    ):
        vault.next_replies = [reply]
        with pytest.raises(kind):
            read(provider)
    assert read(provider) == 1


def test_kubernetes_login_sends_role_and_jwt_and_its_token_is_kept(
    vault: VaultDouble, clock: Clock, jwt_file: Path
) -> None:
    provider = by_kubernetes(vault, clock, jwt_file)
    for _ in range(3):
        read(provider)
    logins = [call for call in vault.calls if call.path == LOGIN]
    assert [call.body for call in logins] == [{"role": "agent", "jwt": JWT}]


def test_kubernetes_login_sends_no_token_of_the_surroundings(
    vault: VaultDouble,
    clock: Clock,
    jwt_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", vault.root.id)
    (tmp_path / ".vault-token").write_text(vault.root.id)
    read(by_kubernetes(vault, clock, jwt_file))
    assert vault.root.id not in {call.token for call in vault.calls}


def test_kubernetes_login_is_repeated_before_the_lease_ends_with_the_jwt_read_again(
    vault: VaultDouble, clock: Clock, jwt_file: Path
) -> None:
    provider = by_kubernetes(vault, clock, jwt_file)
    read(provider)
    clock.advance(569)
    read(provider)
    assert vault.paths().count(LOGIN) == 1
    vault.roles["kubernetes", "agent"] = KubernetesRole(rules=APP, jwts={f"{JWT}-next"}, ttl=600)
    jwt_file.write_text(f"{JWT}-next")
    clock.advance(2)
    read(provider)
    assert vault.paths().count(LOGIN) == 2
    tokens = [call.token for call in vault.calls if call.path == "secret/data/app/db"]
    assert len(set(tokens)) == 2


def test_token_revoked_early_is_replaced_by_a_new_login(
    vault: VaultDouble, clock: Clock, jwt_file: Path
) -> None:
    provider = by_kubernetes(vault, clock, jwt_file)
    read(provider)
    (used,) = {call.token for call in vault.calls if call.token}
    vault.revoke(used)
    assert read(provider) == 1
    assert vault.paths().count(LOGIN) == 2


def test_missing_right_causes_no_second_login(
    vault: VaultDouble, clock: Clock, jwt_file: Path
) -> None:
    provider = by_kubernetes(vault, clock, jwt_file)
    with pytest.raises(ProviderPermissionError):
        provider.read("other/db", {})
    assert vault.paths().count(LOGIN) == 1


def test_many_threads_share_one_login(vault: VaultDouble, clock: Clock, jwt_file: Path) -> None:
    provider = by_kubernetes(vault, clock, jwt_file)
    start, seen = threading.Barrier(8), []

    def work() -> None:
        start.wait()
        seen.append(read(provider))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 8
    assert vault.paths().count(LOGIN) == 1


def test_refused_login_may_be_tried_again_and_shows_no_jwt(
    vault: VaultDouble, clock: Clock, jwt_file: Path
) -> None:
    provider = by_kubernetes(vault, clock, jwt_file)
    jwt_file.write_text(f"{JWT}-expired")
    with pytest.raises(AuthFailedError) as caught:
        read(provider)
    assert (caught.value.code, caught.value.retryable) == ("auth_failed", True)
    assert_tells_nothing(caught.value)
    jwt_file.write_text(JWT)
    assert read(provider) == 1


def test_unknown_role_is_a_refused_login(vault: VaultDouble, clock: Clock, jwt_file: Path) -> None:
    vault.roles["kubernetes", "other"] = vault.roles.pop(("kubernetes", "agent"))
    with pytest.raises(AuthFailedError):
        read(by_kubernetes(vault, clock, jwt_file))


def test_sealed_vault_at_login_is_unavailable(
    vault: VaultDouble, clock: Clock, jwt_file: Path
) -> None:
    vault.sealed = True
    with pytest.raises(UnavailableError):
        read(by_kubernetes(vault, clock, jwt_file))


def test_pod_without_service_account_cannot_log_in(
    vault: VaultDouble, clock: Clock, tmp_path: Path
) -> None:
    with pytest.raises(AuthFailedError, match="service account"):
        read(by_kubernetes(vault, clock, tmp_path / "absent"))
    assert vault.calls == []


def test_token_wins_over_the_role_and_the_jwt_path_cannot_be_moved(
    vault: VaultDouble, jwt_file: Path
) -> None:
    vault.roles["k8s", "agent"] = vault.roles["kubernetes", "agent"]
    env = {
        "SB_VAULT_ADDR": f"{vault.url}/",
        "SB_VAULT_KUBERNETES_ROLE": "agent",
        "SB_VAULT_KUBERNETES_MOUNT_PATH": "k8s",
        "SB_VAULT_KUBERNETES_TOKEN_PATH": str(jwt_file),
    }
    assert not SERVICE_ACCOUNT_TOKEN.exists()
    with pytest.raises(AuthFailedError):
        read(open_provider(env))
    assert vault.calls == []
    assert read(open_provider({**env, "SB_VAULT_TOKEN": vault.root.id})) == 1
