"""The secrets of an environment, key by key, as what there is to ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sb.http.bodies import Body
from sb.http.declare import Call, Reply, Session, route
from sb.http.pages import Page, next_link
from sb.ops import environment_secrets, tenancy_errors


class EnvironmentSecret(Body):
    """One key of a secret, or with an empty `key_name` every key there is."""

    secret_id: str
    secret_ref: str
    provider_type: str
    cluster_name: str
    provider_connection_id: str | None
    key_name: str
    allowed_ops: list[str]
    #: Null when the binding is for every environment of the project.
    environment_id: str | None


class ListOfEnvironment(Page):
    """A page of bindings, each with all its keys."""


@route(
    "GET",
    "/projects/<id:project_id>/environments/<id:environment_id>/secrets",
    access=Session("secret.list"),
    query=ListOfEnvironment,
    returns=list[EnvironmentSecret],
    errors=(tenancy_errors.EnvironmentNotFoundError,),
    summary="List the secrets of an environment key by key, newest binding first; never a value",
)
async def list_environment_secrets(call: Call[Any]) -> Reply:
    query: ListOfEnvironment = call.query
    rows = await call.state.db.read(
        environment_secrets.list_bindings,
        caller=call.person,
        project_id=call.ids["project_id"],
        environment_id=call.ids["environment_id"],
        before=query.before,
        limit=query.limit,
    )
    last = (rows[-1]["created_at"], rows[-1]["secret_id"]) if rows else None
    found = [secret for row in rows for secret in _keys(row)]
    return Reply(found, headers=next_link(call, query, rows, last))


def _keys(row: Mapping[str, Any]) -> list[EnvironmentSecret]:
    facts = {name: row[name] for name in set(EnvironmentSecret.model_fields) - {"key_name"}}
    keys = [""] if row["allowed_keys"] is None else row["allowed_keys"]
    return [EnvironmentSecret(**facts, key_name=key) for key in keys]
