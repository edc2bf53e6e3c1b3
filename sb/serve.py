"""The API process: contexts from the outside in, one nursery, drained on the way out."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import h11
import hypercorn.trio
import trio
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from prometheus_client import CollectorRegistry
from quart_trio import QuartTrio

from sb.auth.passwords import PasswordHasher
from sb.clock import utc_now
from sb.coord import Coordinator
from sb.coord.memory import MemoryCoordinator
from sb.coord.redis import RedisCoordinator
from sb.db.engine import Database
from sb.db.schema import schema_arrived
from sb.http.app import create_app
from sb.http.state import AppState
from sb.kms.local import LocalKeyRing
from sb.kms.metered import MeteredKeys
from sb.metrics import HttpMetrics, new_registry
from sb.ops import bootstrap
from sb.ops.errors import CONSTRAINT_ERRORS
from sb.ops.sessions import SessionRules
from sb.probes import listening_on, serve_probes
from sb.secret import Secret
from sb.settings import ApiSettings, ProcessSettings, listening
from sb.threads import run_blocking

log = logging.getLogger(__name__)


async def run(
    settings: ApiSettings,
    *,
    stop: trio.Event,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the API until `stop` is set, then drain within the grace; started with its URL."""
    async with open_database(settings) as db, open_coordinator(settings) as coord:
        if settings.sb_auto_migrate:
            await run_blocking(db.migrate_sync, limiter=trio.CapacityLimiter(1))
        elif not await schema_arrived(db, stop):
            return
        registry = new_registry()
        state = build_state(settings, db=db, coord=coord, registry=registry)
        await prepare(settings, state)
        async with trio.open_nursery() as nursery:
            if settings.api_metrics_addr is not None:
                address = listening(settings.api_metrics_addr)
                metrics = partial(serve_probes, setting="API_METRICS_ADDR")
                await nursery.start(metrics, address, {}, registry)
            await serve(
                create_app(state),
                settings.address,
                state=state,
                settings=settings,
                stop=stop,
                task_status=task_status,
            )
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_database(settings: ProcessSettings) -> AsyncIterator[Database]:
    """Open the database of the settings for as long as the context lasts."""
    db = Database.open(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_max_conns,
        statement_timeout_ms=int(settings.sb_database_statement_timeout.total_seconds() * 1000),
        lock_timeout_ms=int(settings.sb_database_lock_timeout.total_seconds() * 1000),
        pool_recycle_seconds=int(settings.database_conn_lifetime.total_seconds()),
        constraint_errors=CONSTRAINT_ERRORS,
        exclusive=True,
    )
    try:
        yield db
    finally:
        db.close()


@asynccontextmanager
async def open_coordinator(settings: ProcessSettings) -> AsyncIterator[Coordinator]:
    """Open Redis, or the in-process twin without a REDIS_URL, with its signals running."""
    coord: Coordinator
    if settings.redis_url is None:
        coord = MemoryCoordinator()
    else:
        coord = RedisCoordinator(
            settings.redis_url.get_secret_value(),
            namespace=settings.redis_namespace,
            pool_size=settings.redis_pool_size,
        )
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(coord.run)
            yield coord
            nursery.cancel_scope.cancel()
    finally:
        # After the listener has ended: it reads from the same connections.
        with trio.move_on_after(1, shield=True):
            await coord.aclose()


def build_state(
    settings: ApiSettings, *, db: Database, coord: Coordinator, registry: CollectorRegistry
) -> AppState:
    """Return what the routes of this process share."""
    metrics = HttpMetrics(registry)
    db.observe_waits(metrics.db_wait.observe)
    keys = LocalKeyRing.parse(Secret(settings.master_keys.encode()))
    return AppState(
        db=db,
        coord=coord,
        kms=MeteredKeys(keys, metrics.kms_operation),
        hasher=PasswordHasher(),
        registry=registry,
        metrics=metrics,
        draining=trio.Event(),
        stopping=trio.Event(),
        session_rules=SessionRules(
            absolute=settings.sb_session_ttl,
            idle=settings.sb_session_idle_ttl,
            lock_threshold=settings.sb_lockout_threshold,
            lock_for=settings.sb_lockout_duration,
            temporary_password=settings.sb_temporary_password_ttl,
        ),
        rate_limits={
            "auth:login": settings.sb_rate_login,
            "wrap:retrieve": settings.sb_rate_wrap_retrieve,
            "agent:heartbeat": settings.sb_rate_heartbeat,
            "audit:denials": settings.sb_rate_audit_denials,
        },
        allow_direct_mint=settings.sb_allow_direct_agent_mint,
        secure_cookies=settings.sb_env != "dev",
        public_origin=settings.sb_public_origin,
        serve_metrics=settings.api_metrics_addr is None,
        trusted_proxies=settings.sb_trusted_proxies,
    )


async def prepare(settings: ApiSettings, state: AppState) -> None:
    """Leave the seed rows and the first administrator in place; safe on every replica's start."""
    log.info("key management", extra={"fields": {"key_id": state.kms.current_key_id}})
    if settings.sb_env == "production":
        log.warning("master keys are held in this process (SB_ALLOW_LOCAL_KMS)")
    await state.hasher.dummy()
    await state.db.run(bootstrap.seed, now=utc_now())
    state.metrics.schema_version.set(state.db.expected_version)
    await _make_administrator(settings, state)


async def _make_administrator(settings: ApiSettings, state: AppState) -> None:
    """Leave the administrator of the settings in place, or say why a setting was not used."""
    email, password = settings.sb_bootstrap_admin_email, settings.sb_bootstrap_admin_password
    if email and password:
        made = None
        if not await state.db.read(bootstrap.has_users):
            hashed = await state.hasher.hash(Secret(password.get_secret_value().encode()))
            made = await state.db.run(
                bootstrap.create_first_admin, email=email, password_hash=hashed, now=utc_now()
            )
        if made is None:
            _warn_unused("SB_BOOTSTRAP_ADMIN_EMAIL", bootstrap.Unused.ACCOUNTS)
    if settings.sb_bootstrap_admin_user_id:
        unused = await state.db.run(
            bootstrap.adopt_admin, user_id=settings.sb_bootstrap_admin_user_id, now=utc_now()
        )
        if unused is not None:
            _warn_unused("SB_BOOTSTRAP_ADMIN_USER_ID", unused)


def _warn_unused(setting: str, reason: bootstrap.Unused) -> None:
    fields = {"setting": setting, "reason": reason.value}
    log.info("a setting was not used", extra={"fields": fields})


async def serve(
    app: QuartTrio,
    address: str,
    *,
    state: AppState,
    settings: ApiSettings,
    stop: trio.Event,
    setting: str = "API_ADDR",
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve on the address until `stop`, then drain; `setting` is what names the address.

    Readiness turns to `draining` at once; for the delay calls are still taken, so that whoever
    balances the load notices first. Then long polls end and calls under way have the grace.
    """

    async def drained() -> None:
        await stop.wait()
        state.draining.set()
        await trio.sleep(settings.api_shutdown_delay.total_seconds())
        state.stopping.set()

    async with trio.open_nursery() as nursery:
        serving = partial(
            hypercorn.trio.serve,
            app,
            _config(address, settings),
            shutdown_trigger=drained,
        )
        with listening_on(address, setting):
            urls: list[str] = await nursery.start(serving)
        log.info("listening", extra={"fields": {"url": urls[0]}})
        task_status.started(urls[0])


async def _stay(self: H11Protocol, event: h11.Request) -> None:
    """Answer in HTTP/1.1 whatever a caller would like to switch to."""


# Hypercorn has no setting for it. A proxy that lets `Upgrade: h2c` pass would open a tunnel through
# which callers reach every path and name their own address.
H11Protocol._check_protocol = _stay  # type: ignore[method-assign]


def _config(address: str, settings: ApiSettings) -> Config:
    config = Config()
    config.bind = [address]
    config.graceful_timeout = settings.api_shutdown_grace.total_seconds()
    config.shutdown_timeout = settings.api_shutdown_grace.total_seconds()
    config.include_server_header = False
    config.keep_alive_timeout = 60
    config.backlog = 1024
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.h11_max_incomplete_size = 32 * 1024
    return config
