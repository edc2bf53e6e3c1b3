"""`sb dev`: the whole product in one process, on SQLite, with sample users and sample secrets."""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from sb import log, serve
from sb.auth.tokens import new_token, token_hash
from sb.cli import demo
from sb.cli import organisation as organisation_file
from sb.cli.main import default_data_dir
from sb.cli.signals import stop_on_signals
from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.db.errors import DatabaseLockedError, SchemaError
from sb.http.app import create_app
from sb.http.organisation_document import OrganisationDocument
from sb.http.state import AppState
from sb.ids import new_id
from sb.metrics import new_registry
from sb.ops import bootstrap, connections, enrollments, grants, organisation
from sb.ops.callers import Caller, System
from sb.secret import Secret
from sb.settings import ApiSettings, SettingsError, load
from sb_agent import daemon as agent_daemon
from sb_agent.providers.file import FileProvider
from sb_agent.settings import AgentSettings
from sb_worker import daemon as worker_daemon
from sb_worker.settings import WorkerSettings

DEFAULT_PORT = 18080
#: What stops dev mode with a sentence.
TOLD = (DatabaseLockedError, OSError, SchemaError, SettingsError)
DEV = System(part="dev")
CONNECTION_NAME = "dev-file"

#: Known to everybody who reads this, which is why dev mode listens on the loopback address only.
USERS = (
    ("admin@example.com", "dev-admin-password", "Ada Admin", "admin"),
    ("approver@example.com", "dev-approver-password", "Ari Approver", "approver"),
    ("developer@example.com", "dev-developer-password", "Dana Developer", "developer"),
)
SAMPLE_REF = "apps/billing/db"
SAMPLES = {
    SAMPLE_REF: {
        "DB_HOST": "db.billing.internal",
        "DB_USER": "billing",
        "DB_PASSWORD": "correct-horse-battery-staple",
    },
    "apps/billing/db-dev": {
        "DB_HOST": "localhost",
        "DB_USER": "billing",
        "DB_PASSWORD": "postgres",
    },
    "apps/web/api": {"API_KEY": "sample-api-key", "API_URL": "https://api.example.com"},
}
SAMPLE = {
    "target_provider_type": "file",
    "target_secret_ref": SAMPLE_REF,
    "target_keys": ["DB_USER", "DB_PASSWORD"],
    "target_provider_config": {},
    "justification": "Looking into ticket 4711",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """Everything dev mode keeps, in one directory."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "secrets-bridge.db"

    @property
    def identity(self) -> Path:
        return self.root / "agent" / "identity.json"

    @property
    def agent_key(self) -> Path:
        return self.root / "agent" / "agent.key"

    @property
    def store(self) -> Path:
        return self.root / "agent" / "secrets.enc"

    def master_key(self) -> str:
        """Return the master key, made at the first start and kept with mode 0600."""
        path = self.root / "master.key"
        if not path.exists():
            key = base64.b64encode(secrets.token_bytes(32))
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                out.write(key)
        return path.read_text().strip()


def configure(_name: str, parser: argparse.ArgumentParser) -> None:
    """Give the command its options and what it runs."""
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="listen on this port")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=default_data_dir(),
        help="keep everything in this directory",
    )
    parser.add_argument(
        "--demo", action="store_true", help="play the main job against the server, then stop"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one line of JSON on standard output once ready"
    )
    parser.set_defaults(run=_command)


def _command(options: argparse.Namespace) -> int:
    log.configure("secrets-bridge-dev", os.environ.get("LOG_LEVEL", "warn"))
    url = f"http://127.0.0.1:{options.port}"
    if options.demo and demo.is_running(url):
        if options.json:
            _announce(url, options)
        return trio.run(_demo, url, options)
    try:
        return trio.run(_main, options)
    except (BaseExceptionGroup, *TOLD) as problem:
        return _explain(problem, options)


def _explain(problem: BaseException, options: argparse.Namespace) -> int:
    if isinstance(problem, BaseExceptionGroup):
        if (found := problem.subgroup(TOLD)) is None:
            raise problem
        return _explain(found.exceptions[0], options)
    text = str(problem)
    if isinstance(problem, DatabaseLockedError):
        text = (
            f"another process, most likely another `sb dev`, uses {options.data_dir}: stop it, or "
            "start this one with a --data-dir (and a --port) of its own"
        )
    sys.stderr.write(f"{text}\n")
    return 1


async def _main(options: argparse.Namespace) -> int:
    os.umask(0o077)  # The data directory may be open to others; what is in it is not.
    files = _Files(root=options.data_dir.expanduser().resolve())
    files.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.identity.parent.mkdir(mode=0o700, exist_ok=True)
    environ = _environment(files, options.port)
    settings, worker_settings = load(ApiSettings, environ), load(WorkerSettings, environ)
    worker_settings = worker_settings.model_copy(update={"sb_worker_local_addr": None})
    async with (
        stop_on_signals() as stop,
        serve.open_database(settings) as db,
        serve.open_coordinator(settings) as coord,
    ):
        db.migrate_sync()
        registry = new_registry()
        state = serve.build_state(settings, db=db, coord=coord, registry=registry)
        await serve.prepare(settings, state)
        token = await _seed(state, files)
        async with trio.open_nursery() as nursery:
            serving = _serving(settings, state, stop)
            url = await nursery.start(serving)
            await nursery.start(_working, worker_settings, state, stop, registry)
            await nursery.start(_agent, url, files, token, stop, registry)
            if options.json or not options.demo:
                _announce(url, options)
            if options.demo:
                status = await _demo(url, options)
                stop.set()
                return status
            await stop.wait()
    return 0


async def _demo(url: str, options: argparse.Namespace) -> int:
    # With --json, standard output is one line for a program to read.
    with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout):
        return await demo.play(url, USERS, SAMPLE)


def _environment(files: _Files, port: int) -> dict[str, str]:
    return {
        "DATABASE_URL": f"sqlite:///{files.database}",
        "SB_ENV": "dev",
        "SB_WRAP_MASTER_KEY": files.master_key(),
        "API_ADDR": f"127.0.0.1:{port}",
        "API_SHUTDOWN_DELAY": "0s",
        "API_SHUTDOWN_GRACE": "1s",
        "SB_PUBLIC_ORIGIN": f"http://127.0.0.1:{port}",
        "SB_RATE_WRAP_RETRIEVE": "1000",
        "SB_WORKER_SHUTDOWN_GRACE": "1s",
        **{
            name: value
            for name, value in os.environ.items()
            if name.startswith(("SB_WORKER_", "SB_RATE_"))
        },
    }


async def _seed(state: AppState, files: _Files) -> str | None:
    """Leave sample users, the connection and its store; return a token if the agent must enrol."""
    FileProvider(files.store, Path(f"{files.store}.key")).seed(SAMPLES)
    is_first_start = not await state.db.read(bootstrap.has_users)
    if is_first_start:
        for email, password, name, role in USERS:
            hashed = await state.hasher.hash(Secret(password.encode()))
            await state.db.run(
                bootstrap.create_user,
                email=email,
                password_hash=hashed,
                display_name=name,
                role=role,
                action="auth.bootstrap_dev_user",
                now=utc_now(),
            )
    token = new_token()
    must_enrol = await state.db.run(_connect, token, files.identity.exists())
    if is_first_start:
        await state.db.run(_organise)
    return token if must_enrol else None


def _organise(tx: Transaction) -> None:
    """Make the sample organisation from its file, as `sb apply` would for the administrator."""
    now = utc_now()
    text = Path(__file__).with_name("demo_org.yaml").read_text("utf-8")
    document = OrganisationDocument.model_validate(organisation_file.read(text), strict=True)
    user = tx.one("user_find_by_email", email=USERS[0][0])
    assert user is not None, "the sample users are there"
    caller = Caller(
        user_id=user["id"],
        session_id=new_id(),
        email=user["email"],
        display_name=user["display_name"],
        grants=grants.load(tx, user_id=user["id"], now=now),
    )
    organisation.apply(tx, caller=caller, document=document.given, now=now)


def _connect(tx: Transaction, token: str, has_identity: bool) -> bool:
    """Leave the sample connection in place; issue the token if the agent has no identity yet."""
    now = utc_now()
    found = [
        row
        for row in connections.list_connections(tx, before=None, limit=200)
        if row["name"] == CONNECTION_NAME
    ]
    connection = found[0] if found else _create_connection(tx)
    if has_identity:
        return False
    enrollments.issue(
        tx,
        by=DEV,
        connection_id=connection["id"],
        token_hash=token_hash(token),
        name="dev mode",
        expires_in_seconds=None,
        expected_cluster_name=None,
        expected_provider_type=None,
        now=now,
    )
    return True


def _create_connection(tx: Transaction) -> Any:
    return connections.create(
        tx,
        by=DEV,
        name=CONNECTION_NAME,
        provider_type="file",
        auth_method="default",
        scope={},
        cluster_name="dev",
        description="The encrypted sample store of dev mode",
        now=utc_now(),
    )


def _serving(settings: ApiSettings, state: AppState, stop: trio.Event) -> Any:
    async def run(task_status: trio.TaskStatus[str]) -> None:
        await serve.serve(
            create_app(state),
            settings.address,
            state=state,
            settings=settings,
            stop=stop,
            setting="--port",
            task_status=task_status,
        )

    return run


async def _working(
    settings: WorkerSettings,
    state: AppState,
    stop: trio.Event,
    registry: CollectorRegistry,
    task_status: trio.TaskStatus[None],
) -> None:
    await worker_daemon.run(
        settings,
        db=state.db,
        coord=state.coord,
        stop=stop,
        registry=registry,
        task_status=task_status,
    )


async def _agent(
    url: str,
    files: _Files,
    token: str | None,
    stop: trio.Event,
    registry: CollectorRegistry,
    task_status: trio.TaskStatus[str],
) -> None:
    settings = AgentSettings(
        cp_endpoint=url,
        insecure_transport=True,
        identity_file=files.identity,
        enrollment_token=Secret(token.encode()) if token else None,
        agent_name=f"dev-agent-{secrets.token_hex(4)}",
        provider_type="file",
        cluster_name="dev",
        private_key_file=files.agent_key,
        shutdown_grace_seconds=1.0,
        local_addr="",
        provider_env={"SB_FILE_STORE_PATH": str(files.store)},
    )
    await agent_daemon.run(settings, stop=stop, registry=registry, task_status=task_status)


def _announce(url: str, options: argparse.Namespace) -> None:
    users = [
        {"email": email, "password": password, "roles": [role]}
        for email, password, _, role in USERS
    ]
    if options.json:
        line = json.dumps({"url": url, "users": users, "sample": SAMPLE})
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        return
    people = "\n".join(f"  {u['email']:<24} {u['password']:<24} {u['roles'][0]}" for u in users)
    program = os.path.relpath(Path(sys.executable).parent / "sb")
    elsewhere = options.port != DEFAULT_PORT
    demo_port, there = (f" --port {options.port}", f" --url {url}") if elsewhere else ("", "")
    sys.stdout.write(
        f"""
Secrets Bridge is running at {url}   (API list: {url}/docs, data: {options.data_dir})

Sample users, all on this machine only:
{people}

Try it:
  ./scripts/dev --demo{demo_port}            plays the main job in a second terminal
  {program} request read {SAMPLE_REF} --provider file --key DB_PASSWORD \\
     --justification "ticket 4711" --as developer@example.com{there}
  {program} request --help     approve, reveal, patch and list from a terminal

Ctrl-C stops it; the data stays.
"""
    )
    sys.stdout.flush()
