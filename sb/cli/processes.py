"""One command per process: api, worker, agent; and migrate and check beside them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable

import trio

from sb import log
from sb.cli.signals import stop_on_signals


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Give the command its options and what it runs."""
    if name == "check":
        parser.add_argument("process", choices=("api", "worker", "agent"))
    elif name in ("api", "worker", "agent"):
        parser.add_argument(
            "--check-config", action="store_true", help="check the settings and exit"
        )
    runs: dict[str, Callable[[argparse.Namespace], int]] = {
        "api": _api,
        "worker": _worker,
        "agent": _agent,
        "migrate": _migrate,
        "check": _check,
    }
    parser.set_defaults(run=runs[name])


def _api(options: argparse.Namespace) -> int:
    from sb import serve
    from sb.settings import ApiSettings, SettingsError, load

    try:
        settings = load(ApiSettings)
    except SettingsError as problem:
        return _refuse(problem)
    if options.check_config:
        return _fine()
    log.configure("secrets-bridge-api", settings.log_level)

    async def process(stop: trio.Event) -> None:
        await serve.run(settings, stop=stop)

    return _run(process)


def _worker(options: argparse.Namespace) -> int:
    from sb import serve
    from sb.metrics import new_registry
    from sb.settings import SettingsError, load
    from sb_worker import daemon
    from sb_worker.settings import WorkerSettings

    try:
        settings = load(WorkerSettings)
    except SettingsError as problem:
        return _refuse(problem)
    if options.check_config:
        return _fine()
    log.configure("secrets-bridge-worker", settings.log_level)

    async def process(stop: trio.Event) -> None:
        async with serve.open_database(settings) as db, serve.open_coordinator(settings) as coord:
            await daemon.run(settings, db=db, coord=coord, stop=stop, registry=new_registry())

    return _run(process)


def _agent(options: argparse.Namespace) -> int:
    from sb.metrics import new_registry
    from sb_agent import daemon
    from sb_agent.identity import IdentityError
    from sb_agent.keys import KeyFileError
    from sb_agent.providers import InvalidConfigError, open_provider
    from sb_agent.settings import AgentSettingsError
    from sb_agent.startup import load_to_start

    try:
        settings = load_to_start()
    except AgentSettingsError as problem:
        return _refuse(problem)
    if options.check_config:
        return _fine()
    log.configure("secrets-bridge-agent", settings.log_level)

    known = (IdentityError, KeyFileError, InvalidConfigError, daemon.AgentRejectedError)
    try:
        # Before anything runs: a provider that cannot be opened is no reason to enrol.
        provider = open_provider(settings.provider_type, settings.provider_env)

        async def process(stop: trio.Event) -> None:
            await daemon.run(settings, stop=stop, registry=new_registry(), provider=provider)

        return _run(process)
    except known as problem:
        return _refuse(problem)
    except BaseExceptionGroup as group:
        found = group.subgroup(known)
        if found is None or group.split(known)[1] is not None:
            raise
        return _refuse(_first(found))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def _migrate(_options: argparse.Namespace) -> int:
    from sb.db.engine import Database
    from sb.db.errors import DatabaseLockedError, SchemaError
    from sb.errors import SbError
    from sb.settings import MigrateSettings, SettingsError, load

    try:
        settings = load(MigrateSettings)
    except SettingsError as problem:
        return _refuse(problem)
    try:
        db = Database.open(settings.database_url.get_secret_value(), exclusive=True)
    except DatabaseLockedError as problem:
        return _refuse(problem)
    try:
        applied = db.migrate_sync()
    except (SchemaError, SbError) as problem:
        return _refuse(problem)
    finally:
        db.close()
    for name in applied:
        sys.stdout.write(f"applied {name}\n")
    sys.stdout.write(f"the schema is at version {db.expected_version}\n")
    return 0


def _check(options: argparse.Namespace) -> int:
    options.check_config = True
    return {"api": _api, "worker": _worker, "agent": _agent}[options.process](options)


def _run(process: Callable[[trio.Event], Awaitable[None]]) -> int:
    async def main() -> None:
        async with stop_on_signals() as stop:
            await process(stop)

    try:
        trio.run(main)
    except _told() as problem:
        return _refuse(problem)
    except BaseExceptionGroup as group:
        found, others = group.split(_told())
        if found is None or others is not None:
            raise
        return _refuse(_first(found))
    return 0


def _told() -> tuple[type[Exception], ...]:
    """Return what stops a process with a sentence, such as a port that is taken."""
    from sb.errors import SbError

    # Loaded by those who have a database; the agent must not.
    database = sys.modules.get("sb.db.errors")
    more = (database.SchemaError, database.DatabaseLockedError) if database else ()
    return (OSError, SbError, *more)


def _refuse(problem: BaseException) -> int:
    sys.stderr.write(f"{problem}\n")
    return 1


def _fine() -> int:
    sys.stdout.write("the settings are usable\n")
    return 0
