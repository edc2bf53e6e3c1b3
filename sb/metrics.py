"""The API's metrics, on the registry of its process."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

# They would double the series and say nothing that the process's start does not.
disable_created_metrics()  # type: ignore[no-untyped-call] # the library has no annotations

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def new_registry() -> CollectorRegistry:
    """Return a registry that already carries what is known about the process itself."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class HttpMetrics:
    """Requests by route template, limits, and audit rows that could not be written."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "http_requests",
            "Answered requests.",
            ["method", "route", "status_class"],
            registry=registry,
        )
        self.duration = Histogram(
            "http_request_duration_seconds",
            "How long requests take, by route template.",
            ["method", "route"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge("http_in_flight", "Requests being answered now.", registry=registry)
        self.rate_limited = Counter(
            "rate_limited", "Refused by a rate limit.", ["bucket"], registry=registry
        )
        self.rate_limit_backend_errors = Counter(
            "rate_limit_backend_errors", "Limits that could not be checked.", registry=registry
        )
        self.audit_append_failures = Counter(
            "audit_append_failures", "Denials whose audit row failed.", registry=registry
        )
        self.audit_denials_suppressed = Counter(
            "audit_denials_suppressed", "Denials over their caller's limit.", registry=registry
        )
        self.policy_rules_created = Counter(
            "policy_rules_created", "Rules made.", ["permission_used", "scope"], registry=registry
        )
        self.policy_rules_updated = Counter(
            "policy_rules_updated",
            "Rules changed.",
            ["permission_used", "scope"],
            registry=registry,
        )
        self.policy_rules_deleted = Counter(
            "policy_rules_deleted",
            "Rules deleted.",
            ["permission_used", "scope"],
            registry=registry,
        )
        self.policy_rules_denied = Counter(
            "policy_rules_denied", "Calls about rules refused.", ["reason"], registry=registry
        )
        self.policy_rule_history_views = Counter(
            "policy_rule_history_views", "Histories of rules read.", ["scope"], registry=registry
        )
        self.setting_updates = Counter(
            "platform_setting_updates",
            "Changes of platform settings, and attempts.",
            ["key", "result"],
            registry=registry,
        )
        self.schema_version = Gauge(
            "schema_version", "The newest applied migration.", registry=registry
        )
        self.db_connections = Gauge(
            "db_pool_connections", "Pooled connections.", ["state"], registry=registry
        )
        self.db_wait = Histogram(
            "db_pool_wait_seconds",
            "How long transactions wait for a thread and a connection.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.kms_operation = Histogram(
            "kms_operation_seconds",
            "How long the key store takes.",
            ["op"],
            buckets=(0.0005, *LATENCY_BUCKETS),
            registry=registry,
        )
