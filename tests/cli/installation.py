"""API, worker and agent as processes of their own on Postgres and Redis, with Vault behind them."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg

from sb.db.engine import Database
from tests.agent.vault_double import Token, VaultDouble, serving
from tests.cli import running
from tests.cli.conftest import OFTEN
from tests.cli.running import Process, sign_in, until
from tests.servers import RedisServer, free_port
from tests.stack import PASSWORD, add_user

#: The address as the page has it, and the one place where it becomes the address of this test.
FRONT_DOOR = "http://localhost:18080"
ADMIN = ("admin@example.com", "the-first-administrator")


@dataclass(kw_only=True)
class Installation:
    """The processes, where they listen, what they stand on, and the people."""

    home: Path
    database: str
    redis: RedisServer
    vault: VaultDouble
    api_port: int = field(default_factory=free_port)
    worker_port: int = field(default_factory=free_port)
    agent_port: int = field(default_factory=free_port)
    processes: dict[str, Process] = field(default_factory=dict)
    people: dict[str, httpx.Client] = field(default_factory=dict)
    connection_id: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def admin_token(self) -> str:
        return self.people["admin"].headers["Authorization"].removeprefix("Bearer ")

    def bash(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the page, with the address of this installation."""
        return subprocess.run(
            ["bash", "-c", command.replace(FRONT_DOOR, f"http://localhost:{self.api_port}")],
            env=running.environment(self.home, TOKEN=self.admin_token, **variables),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def prints(self, command: str, **variables: str) -> str:
        done = self.bash(command, **variables)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def objects(self, command: str, **variables: str) -> list[dict[str, Any]]:
        """Return the stream of JSON objects that a command with jq prints."""
        text, found, decoder = self.prints(command, **variables).strip(), [], json.JSONDecoder()
        while text:
            item, end = decoder.raw_decode(text)
            found.append(item)
            text = text[end:].lstrip()
        return found

    def sql(self, statement: str, *parameters: Any) -> None:
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute(statement.encode(), parameters)

    def submit(self, ref: str, *keys: str) -> str:
        """Return the id of a request to read, with the provider's config left blank."""
        body = {"target_provider_type": "vault", "target_secret_ref": ref, "target_keys": keys}
        body["justification"] = "ticket 1"
        answer = self.people["dev"].post("/requests/read", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def approved(self, ref: str, *keys: str, until_status: str) -> dict[str, Any]:
        """Return a request that somebody approved once it has the status."""
        request_id = self.submit(ref, *keys)
        answer = self.people["approver"].post(f"/requests/{request_id}/approve", json={})
        assert answer.status_code == 200, answer.text
        return running.has_status(self.people["dev"], request_id, until_status)

    def reveal(self, request_id: str) -> dict[str, str]:
        path, http = f"/requests/{request_id}/wraps", self.people["dev"]
        answers = {
            wrap["key_name"]: http.get(f"{path}/{wrap['id']}") for wrap in http.get(path).json()
        }
        return {
            name: base64.b64decode(answer.json()["value"]).decode()
            for name, answer in answers.items()
        }


@contextlib.contextmanager
def installed(home: Path, database: str, redis: RedisServer) -> Iterator[Installation]:
    """Run everything for as long as the context lasts; it is ready and its people signed in."""
    with serving(VaultDouble()) as vault, contextlib.ExitStack() as stack:
        found = Installation(home=home, database=database, redis=redis, vault=vault)
        shared = {"DATABASE_URL": database, "REDIS_URL": redis.url, "SB_ENV": "dev"}
        _start(found, stack, "api", {**shared, **_api(found)})
        worker = {"SB_WORKER_LOCAL_ADDR": f"127.0.0.1:{found.worker_port}"}
        _start(found, stack, "worker", {**shared, **OFTEN, **worker})
        until(lambda: is_ready(found.api_port))
        _welcome(found, stack)
        body = {"name": "vault-one", "type": "vault"}
        made = found.people["admin"].post("/provider-connections", json=body)
        found.connection_id = made.json()["id"]
        token = vault.issue({"secret/data/app/*": {"read"}, "secret/data/app/closed": set()})
        _start(found, stack, "agent", _agent(found, token, enrolment_token(found)))
        until(lambda: is_ready(found.agent_port) and is_ready(found.worker_port))
        yield found


def _start(
    found: Installation, stack: contextlib.ExitStack, name: str, settings: Mapping[str, str]
) -> None:
    process = running.started(name, home=found.home, **settings)
    found.processes[name] = stack.enter_context(process)


def _api(found: Installation) -> dict[str, str]:
    return {
        "API_ADDR": f"127.0.0.1:{found.api_port}",
        "API_SHUTDOWN_GRACE": "1s",
        "SB_WRAP_MASTER_KEYS": base64.b64encode(b"k" * 32).decode(),
        "SB_BOOTSTRAP_ADMIN_EMAIL": ADMIN[0],
        "SB_BOOTSTRAP_ADMIN_PASSWORD": ADMIN[1],
        "SB_RATE_LOGIN": "100000",
    }


def _agent(found: Installation, vault_token: Token, enrolment: str) -> dict[str, str]:
    return {
        "SB_CP_ENDPOINT": found.url,
        "SB_INSECURE_TRANSPORT": "true",
        "SB_ENROLLMENT_TOKEN": enrolment,
        "SB_AGENT_NAME": "vault-agent",
        "SB_IDENTITY_FILE": str(found.home / "identity.json"),
        "SB_AGENT_PRIVATE_KEY_FILE": str(found.home / "agent.key"),
        "SB_LOCAL_ADDR": f"127.0.0.1:{found.agent_port}",
        "SB_SHUTDOWN_GRACE": "1s",
        "SB_VAULT_ADDR": found.vault.url,
        "SB_VAULT_TOKEN": vault_token.id,
        "LOG_LEVEL": "debug",
    }


def _welcome(found: Installation, stack: contextlib.ExitStack) -> None:
    db = Database.open(found.database)
    try:
        for name, role in (("dev", "developer"), ("approver", "approver"), ("guest", None)):
            db.run_sync(add_user, email=f"{name}@example.com", role=role)
    finally:
        db.close()
    found.people["admin"] = stack.enter_context(sign_in(found.url, *ADMIN))
    for name in ("dev", "approver", "guest"):
        person = sign_in(found.url, f"{name}@example.com", PASSWORD)
        found.people[name] = stack.enter_context(person)


def enrolment_token(found: Installation) -> str:
    path = f"/provider-connections/{found.connection_id}/agent-enrollment-token"
    answer = found.people["admin"].post(path, json={})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["enrollment_token"])


def is_ready(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200
    return False
