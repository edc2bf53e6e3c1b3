"""The routes: one file per noun; importing them all declares them all."""

from __future__ import annotations

import importlib

MODULES = (
    "auth",
    "users",
    "sessions",
    "roles",
    "grants",
    "requests",
    "wraps",
    "audit",
    "connections",
    "teams",
    "projects",
    "environments",
    "bindings",
    "environment_secrets",
    "secrets",
    "agents",
    "agent_api",
    "agent_jobs",
    "agent_wraps",
    "workflows",
    "policies",
    "policy_preview",
    "scoped_policies",
    "platform_settings",
    "organisation",
)


def load_all() -> None:
    """Leave every route of the product declared."""
    for name in MODULES:
        importlib.import_module(f"sb.http.routes.{name}")
