"""Where a request points: its project binding, environment, provider connection and routing keys.

The control plane decides here what an agent will be asked to touch. What a submitter may say
freely is limited to routing keys; identities and credentials belong to the agent alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sb.auth.access import GLOBAL, Resource
from sb.db.engine import Transaction
from sb.ops.errors import (
    ConnectionDisabledError,
    ConnectionNotFoundError,
    CredentialInConfigError,
    EnvironmentNotInProjectError,
    OutOfScopeKeyError,
    OutOfScopeOpError,
    OutOfScopeProjectError,
    ProviderConnectionRequiredError,
    ProviderTypeMismatchError,
    UnknownConfigKeyError,
)

#: What a submitter may say about the way to a secret, by provider type.
ROUTING_KEYS: dict[str, frozenset[str]] = {
    "vault": frozenset({"kvMount", "kvPrefix"}),
    "aws-sm": frozenset({"region"}),
    "azure-kv": frozenset({"vaultName"}),
    "gcp-sm": frozenset({"projectID"}),
    "kubernetes": frozenset({"namespace"}),
    "file": frozenset(),
}

_CREDENTIAL_NAMES = re.compile(
    r"token|secret|password|passphrase|credential|accesskey|privatekey|apikey|serviceaccount"
    r"|subscriptionkey|sessionkey",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A checked target: everything the request row and its job need to know."""

    resource: Resource
    project_id: str | None
    environment_id: str | None
    environment: str | None
    environment_kind: str | None
    secret_id: str | None
    connection_id: str | None
    cluster_name: str | None


def check_config(provider_type: str, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the routing keys of a free-form provider config, or refuse what is none."""
    known = ROUTING_KEYS[provider_type]
    for key, value in config.items():
        if key in known and isinstance(value, str) and value:
            continue
        if _CREDENTIAL_NAMES.search(re.sub(r"[^a-z]", "", key.lower())):
            raise CredentialInConfigError(field="target_provider_config")
        raise UnknownConfigKeyError(field="target_provider_config", allowed_keys=sorted(known))
    return {key: str(config[key]) for key in sorted(config)}


def resolve(
    tx: Transaction,
    *,
    operation: str,
    provider_type: str,
    secret_ref: str,
    keys: Sequence[str],
    project_id: str | None,
    environment: str | None,
    connection_id: str | None,
) -> Target:
    """Return the target a submit may use, with its binding's limits already enforced."""
    if project_id is None:
        if environment is not None:
            raise EnvironmentNotInProjectError(field="environment")
        connection, cluster = _connection(tx, provider_type, connection_id)
        return Target(
            resource=GLOBAL,
            project_id=None,
            environment_id=None,
            environment=None,
            environment_kind=None,
            secret_id=None,
            connection_id=connection,
            cluster_name=cluster,
        )
    return _bound_target(
        tx,
        operation=operation,
        provider_type=provider_type,
        secret_ref=secret_ref,
        keys=keys,
        project_id=project_id,
        environment=environment,
        connection_id=connection_id,
    )


def _bound_target(
    tx: Transaction,
    *,
    operation: str,
    provider_type: str,
    secret_ref: str,
    keys: Sequence[str],
    project_id: str,
    environment: str | None,
    connection_id: str | None,
) -> Target:
    project = tx.one("project_find", id=project_id)
    if project is None or project["status"] != "active":
        raise OutOfScopeProjectError
    env = _environment(tx, project_id, environment)
    binding = _binding(tx, project_id, provider_type, secret_ref, env["id"] if env else None)
    check_binding(binding, operation=operation, keys=keys)
    bound_cluster = binding["cluster_name"] or None
    connection, cluster = _connection(
        tx,
        provider_type,
        connection_id or binding["provider_connection_id"],
        bound_cluster=bound_cluster,
    )
    cluster = cluster or bound_cluster
    return Target(
        resource=Resource(
            team_id=project["team_id"],
            project_id=project_id,
            environment_id=env["id"] if env else None,
            secret_ref=secret_ref,
            provider=provider_type,
            cluster=cluster,
        ),
        project_id=project_id,
        environment_id=env["id"] if env else None,
        environment=env["name"] if env else None,
        environment_kind=env["kind"] if env else None,
        secret_id=binding["secret_id"],
        connection_id=connection,
        cluster_name=cluster,
    )


def check_binding(binding: Mapping[str, Any], *, operation: str, keys: Sequence[str]) -> None:
    """Refuse an operation or a key that the binding does not allow; no keys means every key."""
    if operation not in binding["allowed_ops"]:
        raise OutOfScopeOpError
    limited = binding["allowed_keys"]
    if limited is not None and (not keys or not set(keys) <= set(limited)):
        raise OutOfScopeKeyError


def _environment(tx: Transaction, project_id: str, name: str | None) -> Mapping[str, Any] | None:
    if name is None:
        return None
    row = tx.one("environment_find_by_name", project_id=project_id, name=name)
    if row is None:
        raise EnvironmentNotInProjectError(field="environment")
    return row


def _binding(
    tx: Transaction, project_id: str, provider_type: str, secret_ref: str, env_id: str | None
) -> Mapping[str, Any]:
    rows = tx.many(
        "binding_list_for_ref",
        project_id=project_id,
        provider_type=provider_type,
        secret_ref=secret_ref,
    )
    # A binding to one environment serves that environment only, so production rules always fire.
    fitting = [row for row in rows if row["environment_id"] in (None, env_id)]
    if not fitting:
        raise OutOfScopeProjectError
    return fitting[0]


def _connection(
    tx: Transaction,
    provider_type: str,
    connection_id: str | None,
    *,
    bound_cluster: str | None = None,
) -> tuple[str | None, str | None]:
    if connection_id is not None:
        row = tx.one("connection_find", id=connection_id)
        if row is None:
            raise ConnectionNotFoundError
        if row["status"] != "active":
            raise ConnectionDisabledError
        if row["type"] != provider_type:
            raise ProviderTypeMismatchError
        if not _serves(row, bound_cluster):
            raise OutOfScopeProjectError
        return row["id"], row["cluster_name"]
    active = tx.many("connection_list_active_of_type", type=provider_type)
    rows = [row for row in active if _serves(row, bound_cluster)]
    if len(rows) > 1:
        raise ProviderConnectionRequiredError(field="provider_connection_id")
    # With no connection of this type only an agent minted without one can do the job.
    return (rows[0]["id"], rows[0]["cluster_name"]) if rows else (None, None)


def _serves(connection: Mapping[str, Any], cluster: str | None) -> bool:
    # A binding to a cluster is a limit: the same path on another cluster is another secret.
    return cluster is None or connection["cluster_name"] in (None, "", cluster)
