"""Teams, projects, environments and bindings of a document, each through its own operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sb.ops import bindings, environments, projects, secrets, teams
from sb.ops.organisation_names import Row, above, everything, fault, joined, parted
from sb.ops.organisation_work import Item, Key, Work, given, placed

PROJECT_SHOWN = ("team", "status")
ENVIRONMENT_SHOWN = ("type", "kind", "risk_level", "description")
BINDING_SHOWN = ("connection", "cluster", "environment", "allowed_ops", "allowed_keys")
DEFAULT_TYPE, DEFAULT_RISK = "other", 1


def team(work: Work, item: Item, at: str) -> None:
    path, row = item["path"], work.names.find("team", item["path"])
    common: dict[str, Any] = {"caller": work.caller, "now": work.now}
    if row is None:
        parent = above(path)
        parent_id = None
        if parent is not None:
            parent_id = work.names.id_of("team", parent, field=f"{at}.path")
        found = teams.create(
            work.tx,
            name=parted(path)[-1],
            parent_team_id=parent_id,
            description=item.get("description"),
            status="active",
            **common,
        )
    else:
        changes = given(item, ("description",))
        found = teams.update(work.tx, team_id=row["id"], changes=changes, **common)
        if item.get("status") == "active":
            teams.set_status(work.tx, team_id=row["id"], status="active", **common)
            found = {**found, "status": "active"}
    work.names.put("team", path, found)
    work.note("team", path, row, found, shown=("description", "status"))
    _members(work, path, found["id"], item.get("members", ()), at)


def _members(work: Work, path: str, team_id: str, emails: Sequence[str], at: str) -> None:
    if not emails:
        return
    rows = everything(
        lambda **page: teams.list_members(work.tx, caller=work.caller, team_id=team_id, **page),
        at="created_at",
        id_="user_id",
    )
    there = {row["user_id"] for row in rows}
    for index, email in enumerate(emails):
        user_id = work.names.person(email, field=f"{at}.members.{index}")
        if user_id not in there:
            teams.add_member(
                work.tx, caller=work.caller, team_id=team_id, user_id=user_id, now=work.now
            )
            there.add(user_id)
            added = {"members": f"+ {email}"}
            work.note("team", path, {"members": None}, added, shown=("members",))


def project(work: Work, item: Item, at: str) -> None:
    name, row = item["name"], work.names.find("project", item["name"])
    team = item.get("team")
    team_id = None if team is None else work.names.id_of("team", team, field=f"{at}.team")
    common: dict[str, Any] = {"caller": work.caller, "now": work.now}
    if row is None:
        found = projects.create(work.tx, name=name, team_id=team_id, status="active", **common)
    else:
        found = row
        if "team" in item and team_id != row["team_id"]:
            projects.set_team(work.tx, project_id=row["id"], team_id=team_id, **common)
            found = {**found, "team_id": team_id}
        if item.get("status") == "active":
            projects.set_status(work.tx, project_id=row["id"], status="active", **common)
            found = {**found, "status": "active"}
    work.names.put("project", name, found)
    work.note("project", name, _shown(work, row), _shown(work, found) or {}, shown=PROJECT_SHOWN)
    for noun, one in (("environments", _environment), ("bindings", _binding)):
        for index, inner in enumerate(item.get(noun, ())):
            with placed(f"{at}.{noun}.{index}"):
                one(work, inner, f"{at}.{noun}.{index}", found)


def _shown(work: Work, row: Row | None) -> Row | None:
    """Return a project as people read it: with its team's path."""
    if row is None:
        return None
    team_id = row["team_id"]
    team = None if team_id is None else work.names.name_of("team", team_id)
    return {"team": team, "status": row["status"]}


def _environment(work: Work, item: Item, at: str, project: Row) -> None:
    path = joined([project["name"], item["name"]])
    row = work.names.find("environment", path)
    keys = ("risk_level", "description")
    common: dict[str, Any] = {"caller": work.caller, "now": work.now}
    if row is None:
        found = environments.create(
            work.tx,
            project_id=project["id"],
            name=item["name"],
            environment_type=item.get("type", DEFAULT_TYPE),
            kind=item.get("kind"),
            risk_level=item.get("risk_level", DEFAULT_RISK),
            description=item.get("description"),
            **common,
        )
    else:
        for key in ("type", "kind"):
            if (item.get(key) or row[key]) != row[key]:
                raise fault(f"{at}.{key}", f"stays {row[key]!r}: it never changes")
        found = environments.update(
            work.tx, environment_id=row["id"], changes=given(item, keys), **common
        )
    work.names.put("environment", path, found)
    work.note("environment", path, row, found, shown=ENVIRONMENT_SHOWN)


def _binding(work: Work, item: Item, at: str, project: Row) -> None:
    wanted: dict[str, Any] = given(item, ("allowed_ops", "allowed_keys"))
    if "environment" in item:
        path = item["environment"] and joined([project["name"], item["environment"]])
        wanted["environment_id"] = path and work.names.id_of(
            "environment", path, field=f"{at}.environment"
        )
    connection = item.get("connection")
    place = secrets.Place(
        provider_type=item["provider"],
        secret_ref=item["secret_ref"],
        cluster_name=item.get("cluster"),
        provider_connection_id=connection
        and work.names.id_of("connection", connection, field=f"{at}.connection"),
    )
    row = _bound(work, project["id"], place, at)
    common: dict[str, Any] = {"caller": work.caller, "project_id": project["id"], "now": work.now}
    if row is None:
        limits = bindings.Limits(**wanted)
        found = bindings.create(work.tx, secret=place, limits=limits, **common)
    else:
        found = bindings.update(work.tx, secret_id=row["secret_id"], changes=wanted, **common)
    _keep(work.bindings[project["id"]], found)
    where = "/".join(part for part in (connection, item.get("cluster")) if part)
    name = f"{joined([project['name']])} {item['provider']}:{item['secret_ref']}"
    name += f" ({where})" if where else ""
    work.note("binding", name, _plain(work, row), _plain(work, found) or {}, shown=BINDING_SHOWN)


def _plain(work: Work, row: Row | None) -> Row | None:
    """Return a binding as people read it: with names in place of ids."""
    if row is None:
        return None
    environment, connection = row["environment_id"], row["provider_connection_id"]
    return {
        **row,
        "environment": environment and parted(work.names.name_of("environment", environment))[-1],
        "connection": connection and work.names.name_of("connection", connection),
        "cluster": row["cluster_name"] or row["connection_cluster"],
    }


def _bound(work: Work, project_id: str, place: secrets.Place, at: str) -> Row | None:
    """Return the project's binding to this secret, if there is one."""
    if project_id not in work.bindings:
        work.bindings[project_id] = _bindings(work, project_id)
    of_path = work.bindings[project_id].get((place.provider_type, place.secret_ref), {})
    found = [row for row in of_path.values() if _is_meant(row, place)]
    if len(found) > 1:
        raise fault(f"{at}.secret_ref", "is bound more than once: say connection and cluster")
    return found[0] if found else None


def _bindings(work: Work, project_id: str) -> dict[Key, dict[str, Row]]:
    rows = everything(
        lambda **page: bindings.list_bindings(
            work.tx, caller=work.caller, project_id=project_id, **page
        ),
        at="created_at",
        id_="secret_id",
    )
    found: dict[Key, dict[str, Row]] = {}
    for row in rows:
        _keep(found, row)
    return found


def _keep(found: dict[Key, dict[str, Row]], row: Row) -> None:
    path = (row["provider_type"], row["secret_ref"])
    found.setdefault(path, {})[row["secret_id"]] = row


def _is_meant(row: Row, place: secrets.Place) -> bool:
    """Tell whether the binding to a secret of the place's path is to the place itself."""
    cluster = row["cluster_name"] or row["connection_cluster"]
    connected = place.provider_connection_id in (None, row["provider_connection_id"])
    return connected and place.cluster_name in (None, cluster)
