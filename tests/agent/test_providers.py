"""What every provider promises, held against each one."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sb_agent.providers import (
    ConflictError,
    InvalidConfigError,
    Provider,
    SecretNotFoundError,
    UnavailableError,
    check_config,
    open_provider,
)
from tests.agent.planted import MARK, NEW, OLD, OTHER, assert_tells_nothing
from tests.agent.vault_double import VaultDouble

Break = Callable[[], None]


@pytest.fixture(params=["file", "vault"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def env(kind: str, vault: VaultDouble, tmp_path: Path) -> dict[str, str]:
    return {
        "file": {"SB_FILE_STORE_PATH": str(tmp_path / "store" / "secrets.enc")},
        "vault": {"SB_VAULT_ADDR": vault.url, "SB_VAULT_TOKEN": vault.root.id},
    }[kind]


@pytest.fixture
def provider(kind: str, env: dict[str, str]) -> Provider:
    return open_provider(kind, env)


@pytest.fixture
def break_store(kind: str, env: dict[str, str], vault: VaultDouble) -> Break:
    """Make the store unusable behind the provider's back."""

    def seal() -> None:
        vault.sealed = True

    def damage() -> None:
        path = Path(env["SB_FILE_STORE_PATH"])
        sealed = path.read_bytes()
        path.write_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))

    return {"file": damage, "vault": seal}[kind]


def test_absent_secret_is_not_found_at_version_zero(provider: Provider) -> None:
    with pytest.raises(SecretNotFoundError) as caught:
        provider.read("app/db", {})
    assert (caught.value.code, caught.value.retryable) == ("not_found", False)
    assert provider.current_version("app/db", {}) == 0


def test_writes_count_versions_and_replace_the_whole_bundle(provider: Provider) -> None:
    assert provider.write("app/db", {"A": OLD, "B": OTHER}, expected=0, config={}) == 1
    assert provider.write("app/db", {"A": NEW}, expected=1, config={}) == 2
    found = provider.read("app/db", {})
    assert (found.values, found.version) == ({"A": NEW}, 2)
    assert provider.current_version("app/db", {}) == 2


@pytest.mark.parametrize("expected", [0, 1, 3, 99])
def test_write_of_another_version_is_a_conflict_and_changes_nothing(
    provider: Provider, expected: int
) -> None:
    provider.write("app/db", {"A": OLD}, expected=0, config={})
    provider.write("app/db", {"A": OTHER}, expected=1, config={})
    with pytest.raises(ConflictError) as caught:
        provider.write("app/db", {"A": NEW}, expected=expected, config={})
    assert caught.value.retryable
    assert_tells_nothing(caught.value)
    assert provider.read("app/db", {}).values == {"A": OTHER}


def test_write_that_expects_a_version_of_nothing_is_a_conflict(provider: Provider) -> None:
    with pytest.raises(ConflictError):
        provider.write("app/db", {"A": NEW}, expected=1, config={})
    with pytest.raises(SecretNotFoundError):
        provider.read("app/db", {})


def test_values_keep_their_json_types_and_characters(provider: Provider) -> None:
    values = {
        "text": f'{MARK} ünï \U0001f511 " \\ \n\t\0',
        "empty": "",
        "whole": 2**53,
        "part": 1.5,
        "flag": False,
        "none": None,
        "list": [1, "a", {"b": []}],
        "": "a key without a name",
        'key/with.odd "chars"': "x",
        "large": MARK * 3000,
        "bytes": base64.b64encode(bytes(range(256))).decode(),
    }
    provider.write("app/db", values, expected=0, config={})
    found = provider.read("app/db", {}).values
    assert found == values
    assert [type(found[key]) for key in values] == [type(value) for value in values.values()]


def test_secrets_do_not_share_versions_or_values(provider: Provider) -> None:
    provider.write("app/a", {"A": OLD}, expected=0, config={})
    provider.write("app/a", {"A": NEW}, expected=1, config={})
    assert provider.write("app/b", {"B": OTHER}, expected=0, config={}) == 1
    assert provider.read("app/a", {}).values == {"A": NEW}


def test_a_second_provider_of_the_same_store_sees_the_same(
    kind: str, env: dict[str, str], provider: Provider
) -> None:
    provider.write("app/db", {"A": OLD}, expected=0, config={})
    assert open_provider(kind, env).read("app/db", {}).values == {"A": OLD}


def test_of_many_writers_of_one_version_exactly_one_wins(
    kind: str, env: dict[str, str], provider: Provider
) -> None:
    provider.write("app/db", {"A": OLD}, expected=0, config={})
    start, outcomes = threading.Barrier(8), []

    def write(each: Provider, number: int) -> None:
        start.wait()
        try:
            outcomes.append(each.write("app/db", {"A": number}, expected=1, config={}))
        except ConflictError:
            outcomes.append(None)

    writers = [provider if number % 2 else open_provider(kind, env) for number in range(8)]
    threads = [
        threading.Thread(target=write, args=(writer, number))
        for number, writer in enumerate(writers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["2", *["None"] * 7]
    assert provider.current_version("app/db", {}) == 2


def test_store_that_cannot_be_used_is_unavailable_and_may_be_tried_again(
    provider: Provider, break_store: Break
) -> None:
    provider.write("app/db", {"A": OLD}, expected=0, config={})
    break_store()
    for call in (
        lambda: provider.read("app/db", {}),
        lambda: provider.current_version("app/db", {}),
        lambda: provider.write("app/db", {"A": NEW}, expected=1, config={}),
    ):
        with pytest.raises(UnavailableError) as caught:
            call()
        assert caught.value.retryable
        assert_tells_nothing(caught.value)


def test_config_of_a_job_is_refused_by_the_name_of_its_key(provider: Provider) -> None:
    for key in ("address", "token", "path", "key_file", "region"):
        with pytest.raises(InvalidConfigError, match=key) as caught:
            check_config(provider, {key: NEW})
        assert_tells_nothing(caught.value)
    assert check_config(provider, {}) == {}


def test_provider_without_its_settings_names_them(kind: str) -> None:
    with pytest.raises(InvalidConfigError, match="SB_"):
        open_provider(kind, {})


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidConfigError):
        open_provider("os", {})


def test_file_store_shows_no_value_and_keeps_its_files_private(tmp_path: Path) -> None:
    path = tmp_path / "store" / "secrets.enc"
    provider = open_provider("file", {"SB_FILE_STORE_PATH": str(path)})
    provider.write("app/db", {"A": OLD}, expected=0, config={})
    assert MARK.encode() not in path.read_bytes()
    for file in path.parent.iterdir():
        assert MARK.encode() not in file.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.with_name("secrets.enc.key").stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_file_store_does_not_open_with_another_key(tmp_path: Path) -> None:
    path = tmp_path / "secrets.enc"
    provider = open_provider("file", {"SB_FILE_STORE_PATH": str(path)})
    provider.write("app/db", {"A": OLD}, expected=0, config={})
    other = {"SB_FILE_STORE_PATH": str(path), "SB_FILE_STORE_KEY_FILE": str(tmp_path / "other")}
    with pytest.raises(UnavailableError):
        open_provider("file", other).read("app/db", {})
    (tmp_path / "short").write_bytes(b"x" * 16)
    with pytest.raises(InvalidConfigError, match="32 bytes"):
        open_provider("file", {**other, "SB_FILE_STORE_KEY_FILE": str(tmp_path / "short")})
