"""The routes: one file per noun; importing them all declares them all."""

from __future__ import annotations

import importlib

MODULES = (
    "auth",
    "requests",
    "wraps",
    "audit",
    "connections",
    "agents",
    "agent_api",
    "agent_jobs",
    "agent_wraps",
)


def load_all() -> None:
    """Leave every route of the product declared."""
    for name in MODULES:
        importlib.import_module(f"sb.http.routes.{name}")
