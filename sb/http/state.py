"""What every route may use: the process's open handles and its rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

import trio
from prometheus_client import CollectorRegistry

from sb.auth.passwords import PasswordHasher
from sb.coord import Coordinator
from sb.db.engine import Database
from sb.kms import KeyManagement
from sb.metrics import HttpMetrics
from sb.ops.sessions import SessionRules


@dataclass(frozen=True, slots=True, kw_only=True)
class AppState:
    """The composition of one API process; `draining` is set at the stop signal.

    `stopping` follows when no more calls are taken, and ends long polls.
    """

    db: Database
    coord: Coordinator
    kms: KeyManagement
    hasher: PasswordHasher
    registry: CollectorRegistry
    metrics: HttpMetrics
    draining: trio.Event
    stopping: trio.Event
    kms_limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(8))
    session_rules: SessionRules = field(default_factory=SessionRules)
    #: Limits that differ from the declared ones, by bucket.
    rate_limits: Mapping[str, int] = field(default_factory=dict)
    allow_direct_mint: bool = False
    secure_cookies: bool = True
    public_origin: str | None = None
    #: False when `/metrics` has a listener of its own.
    serve_metrics: bool = True
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    #: Checks of `/readyz` beyond the API's own, by name.
    checks: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    #: One long poll per agent: a newer one ends the older.
    polls: dict[str, trio.Event] = field(default_factory=dict)
