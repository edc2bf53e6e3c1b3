"""`sb check`: every problem of a process's settings in one go, and never a secret."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.running import sb

SECRET = "planted-credential-7f3a"
CONTROL_PLANE = {"SB_CP_ENDPOINT": "https://bridge.example.com"}
FIXED = {"SB_AGENT_ID": "0b7b4a52-6d5c-4f0e-8f6a-0d7b1c2e3f40", "SB_AGENT_SECRET": SECRET}


def check(process: str, home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return sb("check", process, home=home, environ=environ)


def problems(process: str, home: Path, **environ: str) -> list[str]:
    """Return what the check complains of; it tells no secret and no traceback."""
    done = check(process, home, **environ)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert SECRET not in done.stderr
    title, *lines = done.stderr.splitlines()
    assert title == "the settings are not usable:"
    return [line.removeprefix("  ") for line in lines]


def starts(found: list[str], *expected: str) -> None:
    assert len(found) == len(expected), found
    for each in expected:
        assert any(problem.startswith(each) for problem in found), (each, found)


def test_check_agent_tells_all_of_vaults_settings_at_once(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    (tmp_path / "file").touch()
    found = problems(
        "agent",
        tmp_path,
        **CONTROL_PLANE,
        SB_CP_CA_FILE=str(tmp_path / "ca.pem"),
        SB_VAULT_ADDR=f"https://user:{SECRET}@vault",
        SB_VAULT_CACERT=str(tmp_path / "absent.pem"),
        SB_VAULT_KV_MOUNT="secret/../sys",
        SB_IDENTITY_FILE=str(tmp_path / "file" / "identity.json"),
        SB_ENROLLMENT_TOKEN=SECRET,
        SB_AGENT_PRIVATE_KEY_FILE=str(tmp_path / "ca.pem"),
        LOG_LEVEL="loud",
    )
    starts(
        found,
        "LOG_LEVEL: ",
        f"SB_CP_CA_FILE: {tmp_path}/ca.pem holds no certificate",
        "SB_VAULT_ADDR: write an address like https://",
        "SB_VAULT_TOKEN or SB_VAULT_KUBERNETES_ROLE is required",
        f"SB_VAULT_CACERT: {tmp_path}/absent.pem is no file",
        "SB_VAULT_KV_MOUNT: has empty or relative parts",
        f"SB_IDENTITY_FILE: {tmp_path}/file/identity.json cannot be read: Not a directory",
        f"SB_AGENT_PRIVATE_KEY_FILE: {tmp_path}/ca.pem must hold exactly 32 bytes",
    )


def test_check_agent_tells_what_is_missing_with_nothing_but_an_endpoint(tmp_path: Path) -> None:
    environ = {**CONTROL_PLANE, "SB_IDENTITY_FILE": str(tmp_path / "identity.json")}
    starts(
        problems("agent", tmp_path, **environ),
        "SB_VAULT_ADDR is required",
        "SB_VAULT_TOKEN or SB_VAULT_KUBERNETES_ROLE is required",
        "no identity: set SB_AGENT_ID and SB_AGENT_SECRET, ",
    )


def test_check_agent_tells_a_kubernetes_role_without_the_pods_token(tmp_path: Path) -> None:
    role = {"SB_VAULT_ADDR": "https://vault", "SB_VAULT_KUBERNETES_ROLE": "agent"}
    found = problems("agent", tmp_path, **CONTROL_PLANE, **FIXED, **role)
    starts(found, "SB_VAULT_KUBERNETES_ROLE: /var/run/secrets/")


def test_check_agent_tells_an_unreadable_token_file_once(tmp_path: Path) -> None:
    vault = {"SB_VAULT_ADDR": "https://vault", "SB_VAULT_TOKEN_FILE": str(tmp_path / "absent")}
    found = problems("agent", tmp_path, **CONTROL_PLANE, **FIXED, **vault)
    assert found == ["SB_VAULT_TOKEN_FILE: cannot be read"]


@pytest.mark.parametrize("text", ["{", "[]", '{"agent_id": "a"}'])
def test_check_agent_tells_a_damaged_identity(tmp_path: Path, text: str) -> None:
    identity = tmp_path / "identity.json"
    identity.write_text(text)
    identity.chmod(0o600)
    environ = {**CONTROL_PLANE, "SB_VAULT_ADDR": "https://vault", "SB_VAULT_TOKEN": SECRET}
    found = problems("agent", tmp_path, **environ, SB_IDENTITY_FILE=str(identity))
    starts(found, f"SB_IDENTITY_FILE: {identity} ")


def test_check_agent_tells_the_file_stores_settings(tmp_path: Path) -> None:
    file = {**CONTROL_PLANE, **FIXED, "SB_PROVIDER_TYPE": "file"}
    starts(problems("agent", tmp_path, **file), "SB_FILE_STORE_PATH is required")
    (tmp_path / "short").write_text(SECRET)
    found = problems(
        "agent",
        tmp_path,
        **file,
        SB_FILE_STORE_PATH=str(tmp_path / "short" / "store"),
        SB_FILE_STORE_KEY_FILE=str(tmp_path / "short"),
    )
    starts(
        found,
        f"SB_FILE_STORE_PATH: {tmp_path}/short/store does not exist and cannot be made",
        f"SB_FILE_STORE_KEY_FILE: {tmp_path}/short must hold exactly 32 bytes",
    )


def test_check_agent_makes_nothing_and_says_that_all_is_well(tmp_path: Path) -> None:
    file = {**CONTROL_PLANE, "SB_PROVIDER_TYPE": "file", "SB_ENROLLMENT_TOKEN": SECRET}
    done = check(
        "agent",
        tmp_path,
        **file,
        SB_FILE_STORE_PATH=str(tmp_path / "new" / "store"),
        SB_IDENTITY_FILE=str(tmp_path / "new" / "identity.json"),
        SB_AGENT_PRIVATE_KEY_FILE=str(tmp_path / "new" / "key"),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "the settings are usable\n", "")
    assert list(tmp_path.iterdir()) == []


def test_check_api_tells_every_problem_at_once(tmp_path: Path) -> None:
    found = problems(
        "api",
        tmp_path,
        DATABASE_URL=f"postgresql://user:{SECRET}@host:port/db",
        API_ADDR="nowhere",
        SB_WRAP_MASTER_KEYS=SECRET,
        SB_BOOTSTRAP_ADMIN_PASSWORD=SECRET,
        SB_BOOTSTRAP_ADMIN_USER_ID="admin",
        SB_RATE_AUDIT_DENIALS="0",
    )
    starts(
        found,
        "DATABASE_URL: the port is not a number",
        "API_ADDR: ",
        "SB_BOOTSTRAP_ADMIN_USER_ID: write the id of an account",
        "SB_RATE_AUDIT_DENIALS: ",
        "REDIS_URL is required with Postgres",
        "SB_WRAP_MASTER_KEYS: ",
        "SB_KMS_BACKEND=local ",
        "SB_BOOTSTRAP_ADMIN_EMAIL and SB_BOOTSTRAP_ADMIN_PASSWORD go together",
    )


def test_check_worker_tells_every_problem_at_once(tmp_path: Path) -> None:
    found = problems(
        "worker",
        tmp_path,
        DATABASE_URL="sqlite://",
        REDIS_URL=f"redis://:{SECRET}@host:x",
        SB_WORKER_SESSIONS_PURGE_INTERVAL="often",
    )
    starts(found, "DATABASE_URL: ", "REDIS_URL: ", "SB_WORKER_SESSIONS_PURGE_INTERVAL: ")


@pytest.mark.parametrize("command", [("migrate",), ("check", "worker"), ("check", "api")])
@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite"])
def test_database_that_is_kept_nowhere_is_refused(
    tmp_path: Path, command: tuple[str, ...], url: str
) -> None:
    done = sb(*command, home=tmp_path, environ={"DATABASE_URL": url})
    assert done.returncode == 1
    assert "  DATABASE_URL: " in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
