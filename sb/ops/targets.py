"""Where a request points: its project binding, environment, provider connection and routing keys.

The control plane decides here what an agent will be asked to touch. What a submitter may say
freely is limited to routing keys; identities and credentials belong to the agent alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sb.auth.access import GLOBAL, Resource
from sb.db.engine import Transaction
from sb.errors import InvalidInputError, SbError
from sb.ops.errors import (
    ConnectionDisabledError,
    ConnectionNotFoundError,
    CredentialInConfigError,
    EnvironmentNotInProjectError,
    EnvironmentRequiredError,
    OutOfScopeKeyError,
    OutOfScopeOpError,
    OutOfScopeProjectError,
    ProviderConnectionRequiredError,
    ProviderTypeMismatchError,
    UnknownConfigKeyError,
)
from sb.ops.tenancy_errors import BindingRevokedError, EnvironmentDeletedError, ProjectArchivedError

#: Providers whose references are paths.
PATH_PROVIDERS = frozenset({"vault", "file"})
#: The longest path, and beginning of one, in UTF-8: entries of an index have a largest size.
MAX_REF_BYTES: Final = 1024
LONG_REF: Final = f"must be text of 1 to {MAX_REF_BYTES} bytes in UTF-8"

#: What a submitter may say about the way to a secret, by provider type.
ROUTING_KEYS: dict[str, frozenset[str]] = {
    "vault": frozenset({"kvMount", "kvPrefix"}),
    "aws-sm": frozenset({"region"}),
    "azure-kv": frozenset({"vaultName"}),
    "gcp-sm": frozenset({"projectID"}),
    "kubernetes": frozenset({"namespace"}),
    "file": frozenset(),
}

#: Routing keys that are parts of a path: with one spelling each, two paths are two secrets.
_PATH_KEYS = frozenset({"kvMount", "kvPrefix"})

_CREDENTIAL_NAMES = re.compile(
    r"token|secret|password|passphrase|credential|accesskey|privatekey|apikey|serviceaccount"
    r"|subscriptionkey|sessionkey",
)


def fits_ref(text: str) -> bool:
    """Tell whether the text is no longer than a path can be, nor empty."""
    return 0 < len(text.encode("utf-8", "surrogatepass")) <= MAX_REF_BYTES


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
    #: The routing keys its job will carry.
    config: Mapping[str, str]
    #: Whether it is for production though its environment is not, since its secret serves it.
    sticks: bool = False


def check_config(provider_type: str, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the routing keys of a free-form provider config, or refuse what is none."""
    known = ROUTING_KEYS[provider_type]
    for key, value in config.items():
        if key in known and isinstance(value, str) and value:
            continue
        if _CREDENTIAL_NAMES.search(re.sub(r"[^a-z]", "", key.lower())):
            raise CredentialInConfigError(field="target_provider_config")
        raise UnknownConfigKeyError(field="target_provider_config", allowed_keys=sorted(known))
    for key in _PATH_KEYS & config.keys():
        if any(part in ("", ".", "..") for part in config[key].split("/")):
            reason = f"{key} has no empty or relative parts and no slash at its ends"
            raise InvalidInputError(fields=[{"field": "target_provider_config", "reason": reason}])
    return {key: str(config[key]) for key in sorted(config)}


def full_ref(provider_type: str, secret_ref: str, config: Mapping[str, str]) -> str:
    """Return the path rules are matched against, prefix included, or refuse one with two spellings.

    What the provider would read as the same place must not pass by a rule for that place.
    """
    path = joined_ref(provider_type, secret_ref, config)
    if provider_type in PATH_PROVIDERS and any(p in ("", ".", "..") for p in path.split("/")):
        raise InvalidInputError(
            fields=[
                {
                    "field": "target_secret_ref",
                    "reason": "a path has no empty or relative parts and no slash at its ends",
                }
            ]
        )
    return path


def joined_ref(provider_type: str, secret_ref: str, config: Mapping[str, str]) -> str:
    """Return the path by which a provider finds the secret, prefix included, as it is written."""
    if provider_type not in PATH_PROVIDERS:
        return secret_ref
    return "/".join(part for part in (config.get("kvPrefix", ""), secret_ref) if part)


def resolve(
    tx: Transaction,
    *,
    operation: str,
    provider_type: str,
    secret_ref: str,
    keys: Sequence[str],
    config: Mapping[str, str],
    project_id: str | None,
    environment: str | None,
    connection_id: str | None,
) -> Target:
    """Return the target a submit may use, with its binding's limits already enforced."""
    if project_id is None:
        if environment is not None:
            raise EnvironmentNotInProjectError(field="environment")
        connection, cluster = find_connection(tx, provider_type, connection_id)
        return Target(
            resource=GLOBAL,
            project_id=None,
            environment_id=None,
            environment=None,
            environment_kind=None,
            secret_id=None,
            connection_id=connection,
            cluster_name=cluster,
            config=config,
        )
    return _bound_target(
        tx,
        operation=operation,
        provider_type=provider_type,
        secret_ref=secret_ref,
        keys=keys,
        config=config,
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
    config: Mapping[str, str],
    project_id: str,
    environment: str | None,
    connection_id: str | None,
) -> Target:
    project = tx.one("project_find", id=project_id)
    if project is None or project["status"] != "active":
        raise OutOfScopeProjectError
    env = _environment(tx, project_id, environment)
    if env is None and tx.scalar("environment_any_prod", project_id=project_id) is not None:
        # Rules for production must not be passed by leaving production out.
        raise EnvironmentRequiredError(field="environment")
    rows = tx.many(
        "binding_list_for_ref",
        project_id=project_id,
        provider_type=provider_type,
        secret_ref=secret_ref,
    )
    binding = _fitting(rows, env_id=env["id"] if env else None, connection_id=connection_id)
    check_binding(binding, operation=operation, keys=keys)
    bound_cluster = binding["cluster_name"] or None
    try:
        connection, cluster = _bound_connection(
            tx, provider_type, binding["provider_connection_id"], bound_cluster=bound_cluster
        )
    except (ConnectionNotFoundError, ProviderTypeMismatchError):
        # Whichever it is, it is no way to this secret; which there are is not told here.
        raise OutOfScopeProjectError from None
    if connection_id not in (None, connection):
        # Behind another connection the same path is another secret, maybe somebody else's.
        raise OutOfScopeProjectError
    way = _own_way(tx, connection_id=connection, config=config)
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
        config=way,
    )


def check_binding(binding: Mapping[str, Any], *, operation: str, keys: Sequence[str]) -> None:
    """Refuse an operation or a key that the binding does not allow; no keys means every key."""
    if operation not in binding["allowed_ops"]:
        raise OutOfScopeOpError
    limited = binding["allowed_keys"]
    if limited is not None and (not keys or not set(keys) <= set(limited)):
        raise OutOfScopeKeyError


def find_lost_ground(
    tx: Transaction, row: Mapping[str, Any], *, keys: Sequence[str] | None, ready: bool
) -> SbError | None:
    """Return why what a request rests on does not carry it any more, or None.

    `row` is what it rests on as it is now.
    """
    if row["project_id"] is not None:
        refusal = _withdrawn(row, row["target_keys"] if keys is None else keys)
        if refusal is not None:
            return refusal
        if _leads_elsewhere(tx, row):
            return BindingRevokedError()
    if ready and row["connection_status"] not in (None, "active"):
        return ConnectionDisabledError()
    return None


def _withdrawn(row: Mapping[str, Any], keys: Sequence[str]) -> SbError | None:
    if row["project_status"] != "active":
        return ProjectArchivedError()
    if row["environment_deleted_at"] is not None:
        return EnvironmentDeletedError()
    if row["bound_secret_id"] is None:
        return BindingRevokedError()
    if row["bound_environment_id"] not in (None, row["environment_id"]):
        return BindingRevokedError()
    try:
        check_binding(row, operation=row["type"], keys=keys)
    except (OutOfScopeOpError, OutOfScopeKeyError) as refusal:
        return refusal
    return None


def _leads_elsewhere(tx: Transaction, row: Mapping[str, Any]) -> bool:
    """Tell whether the request goes by a connection that is not surely its binding's."""
    chosen, bound = row["provider_connection_id"], row["bound_connection_id"]
    if bound is not None or chosen is None:
        return bool(chosen != bound)
    # Bound to none, it was led by the only one there was.
    return _many_ways(tx, row["target_provider_type"], row["bound_cluster"] or None)


def _environment(tx: Transaction, project_id: str, name: str | None) -> Mapping[str, Any] | None:
    if name is None:
        return None
    row = tx.one("environment_find_by_name", project_id=project_id, name=name)
    if row is None:
        raise EnvironmentNotInProjectError(field="environment")
    return row


def _fitting(
    rows: Sequence[Mapping[str, Any]], *, env_id: str | None, connection_id: str | None
) -> Mapping[str, Any]:
    # A binding to one environment serves that environment only, so production rules always fire.
    fitting = [row for row in rows if row["environment_id"] in (None, env_id)]
    if connection_id is not None:
        # The same path behind another connection is another secret.
        fitting = [row for row in fitting if row["provider_connection_id"] in (None, connection_id)]
    if not fitting:
        raise OutOfScopeProjectError
    if len(fitting) > 1:
        raise ProviderConnectionRequiredError(field="provider_connection_id")
    return fitting[0]


def _bound_connection(
    tx: Transaction, provider_type: str, connection_id: str | None, *, bound_cluster: str | None
) -> tuple[str | None, str | None]:
    """Return the way of a binding; one that names no connection leads by the only one there is."""
    if connection_id is None and _many_ways(tx, provider_type, bound_cluster):
        # Choosing one is the binder's to do, not the submitter's.
        raise ProviderConnectionRequiredError(
            "The secret is bound without a provider connection and there are several by now: "
            "have it bound again to one of them."
        )
    return find_connection(tx, provider_type, connection_id, bound_cluster=bound_cluster)


def _many_ways(tx: Transaction, provider_type: str, cluster: str | None) -> bool:
    """Tell whether what is bound without a connection may be behind more than one.

    One that is disabled counts: which of them is leaves the meaning of the binding as it is.
    """
    return len(tx.many("connection_list_of_type", type=provider_type, cluster_name=cluster)) > 1


def _own_way(
    tx: Transaction, *, connection_id: str | None, config: Mapping[str, str]
) -> Mapping[str, str]:
    """Return the connection's own routing keys, the only ones by which a bound secret is reached.

    Others would lead past it: a mount or a prefix of the submitter's makes another secret of it.
    """
    row = tx.one("connection_find", id=connection_id) if connection_id is not None else None
    scope: Mapping[str, str] = row["scope"] if row is not None else {}
    if any(scope.get(key) != value for key, value in config.items()):
        raise OutOfScopeProjectError
    return scope


def find_connection(
    tx: Transaction,
    provider_type: str,
    connection_id: str | None,
    *,
    bound_cluster: str | None = None,
) -> tuple[str | None, str | None]:
    """Return the active connection that leads there and its cluster, or refuse; None for none."""
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
    rows = tx.many("connection_list_active_of_type", type=provider_type, cluster_name=bound_cluster)
    if len(rows) > 1:
        raise ProviderConnectionRequiredError(field="provider_connection_id")
    # With no connection of this type only an agent minted without one can do the job.
    return (rows[0]["id"], rows[0]["cluster_name"]) if rows else (None, None)


def _serves(connection: Mapping[str, Any], cluster: str | None) -> bool:
    # A binding to a cluster is a limit: the same path on another cluster is another secret.
    return cluster is None or connection["cluster_name"] in (None, "", cluster)
