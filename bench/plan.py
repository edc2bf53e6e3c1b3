"""How much is measured: the full sizes, and tiny ones for the smoke test."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.organisation import Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Sizes of one run; every measure is repeated and the median of its runs is reported."""

    repeats: int = 3
    #: Enough that nobody meets the limit of 120 requests or decisions a minute.
    pairs: int = 60
    approvals_at_1: int = 200
    approvals_at_20: int = 400
    chains: int = 400
    in_flight: int = 20
    #: Enough that nobody meets the limit of six a minute.
    agents: int = 12_000
    heartbeat_seconds: int = 10
    heartbeat_connections: int = 16
    logins: int = 40
    flood_seconds: int = 10
    flood_connections: int = 64
    audit_rows: int = 1_000_000
    audit_samples: int = 500
    audit_page: int = 1000
    idle_seconds: int = 30
    transactions: int = 2000
    organisation: Sizes = field(default_factory=Sizes)
    #: Three runs of these; some of them by people with limits of their own.
    governance_samples: int = 200


FULL = Plan()
QUICK = Plan(
    repeats=1,
    pairs=4,
    approvals_at_1=5,
    approvals_at_20=10,
    chains=10,
    in_flight=4,
    agents=2_000,
    heartbeat_seconds=1,
    heartbeat_connections=4,
    logins=3,
    flood_seconds=1,
    flood_connections=8,
    audit_rows=3_000,
    audit_samples=10,
    audit_page=10,
    idle_seconds=1,
    transactions=50,
    organisation=Sizes(users=60, teams=40, projects=50, grants=200, rules=100, requests=500),
    governance_samples=3,
)
