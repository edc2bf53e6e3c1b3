"""Lists for random grants: exactly what the grants cover, however the queries are told of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sb.auth.access import Grant, Resource, allowed
from sb.ops import arrays, environments, projects, secrets, users
from sb.ops.callers import Caller
from tests.ops.estate import Estate, place
from tests.ops.world import World

#: Each with whatever is below it, itself included.
BELOW = {"top": {"top", "low"}, "low": {"low"}, "beside": {"beside"}}
PLACES = ("team_id", "project_id", "environment_id")
#: The path, the cluster and the places it is bound at: project and environment, if only one.
BOUND: Mapping[tuple[str, str], tuple[tuple[str, str | None], ...]] = {
    ("app/a", "east"): (("top", None),),
    ("app/b", "east"): (("top", "top-1"), ("low", None)),
    ("app/c", "west"): (("low", "low-0"),),
    ("web/d", "west"): (("beside", None), ("loose", "loose-1")),
    ("web/e", "east"): (("loose", None),),
    ("web/lost", "west"): (),
}
PROJECTS = ("top", "low", "beside", "loose")
SPARE = 60


@dataclass
class Places:
    """Four projects, one under no team, with two environments each, and secrets in some."""

    world: World
    ids: dict[str, dict[str, str]]
    person: Caller

    @classmethod
    def build(cls, world: World) -> Places:
        estate, ids = Estate.of(world), dict[str, dict[str, str]]()
        ways = {name: world.connection(cluster=name) for name in ("east", "west")}
        top = estate.team("top")
        ids["team_id"] = {"top": top, "low": estate.team("low", top)}
        ids["team_id"]["beside"] = estate.team("beside")
        ids["project_id"] = {
            name: estate.project(name, ids["team_id"].get(name)) for name in PROJECTS
        }
        ids["environment_id"] = {
            f"{name}-{n}": estate.environment(project, str(n))
            for name, project in ids["project_id"].items()
            for n in range(2)
        }
        for (ref, cluster), bound in BOUND.items():
            where = place(ref, provider_connection_id=ways[cluster])
            for project, env in bound or (("top", None),):
                pinned = ids["environment_id"].get(env or "")
                row = estate.bind(ids["project_id"][project], where, environment_id=pinned)
                if not bound:
                    estate.unbind(ids["project_id"][project], row["secret_id"])
        return cls(world=world, ids=ids, person=world.person("somebody"))

    def grant(self, permission: str, named: Mapping[str, str], *, wide: bool) -> Grant:
        scope = {key: self.ids.get(key, {}).get(value, value) for key, value in named.items()}
        teams = {self.ids["team_id"][name] for name in BELOW.get(named.get("team_id", ""), ())}
        if wide and teams:  # More teams than are looked up one by one; they have no projects.
            teams |= {f"01a20952-80b3-74ea-a5c6-{n:012x}" for n in range(SPARE)}
        return Grant(
            role_id="r",
            role_name="r",
            permissions=frozenset({permission}),
            scope=scope,
            team_ids=frozenset(teams),
        )

    def within(self, project: str, env: str | None, **more: str) -> Resource:
        return Resource(
            team_id=self.ids["team_id"].get(project),
            project_id=self.ids["project_id"][project],
            environment_id=self.ids["environment_id"].get(env or ""),
            **more,
        )

    def readable(self, grants: list[Grant], project: str, env: str | None = None) -> bool:
        """Tell whether a grant says something of places that holds for the project."""
        leading = [
            replace(grant, scope=told)
            for grant in grants
            if (told := {key: grant.scope[key] for key in PLACES if key in grant.scope})
            or not grant.scope
        ]
        return any(
            allowed(leading, key, self.within(project, one))
            for key in projects.READABLE_BY
            for one in ([env] if env else envs_of(project))
        )

    def listable(self, grants: list[Grant], ref: str, cluster: str) -> bool:
        what = {"secret_ref": ref, "provider": "file", "cluster": cluster}
        resources = [Resource(**what)]
        for project, env in BOUND[ref, cluster]:
            for one in [env] if env else envs_of(project):
                resources.append(self.within(project, one, **what))
        return any(allowed(grants, "secret.list", found) for found in resources)


def envs_of(project: str) -> Iterator[str]:
    return (f"{project}-{n}" for n in range(2))


VALUES = {
    "team_id": tuple(BELOW),
    "project_id": PROJECTS,
    "environment_id": tuple(env for name in PROJECTS for env in envs_of(name)),
    "secret_ref_prefix": ("app/", "app/b", "web/"),
    "provider": ("file", "vault"),
    "cluster": ("east",),
}
SCOPES = st.lists(st.sampled_from(sorted(VALUES)), max_size=2, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: st.sampled_from(VALUES[key]) for key in keys})
)


@pytest.fixture
def places(world: World) -> Places:
    return Places.build(world)


def test_lists_for_random_grants_agree_with_what_they_cover(world: World, places: Places) -> None:
    assert arrays.MAX_LISTED_TEAMS < SPARE
    permissions = st.sampled_from(["secret.list", "policy.edit", "audit.read"])
    made: Callable[..., Grant] = places.grant
    grants = st.lists(st.builds(made, permissions, SCOPES, wide=st.booleans()), max_size=6)
    page: dict[str, Any] = {"before": None, "limit": 50}

    def check(held: list[Grant]) -> None:
        caller = replace(places.person, grants=tuple(held))
        seen = {name for name in PROJECTS if places.readable(held, name)}
        rows = world.run(projects.list_projects, caller=caller, **page)
        assert {row["name"] for row in rows} == seen
        envs = {e for name in PROJECTS for e in envs_of(name) if places.readable(held, name, e)}
        rows = world.run(environments.list_environments, caller=caller, **page)
        assert {row["id"] for row in rows} == {places.ids["environment_id"][e] for e in envs}
        own = world.run(users.readable_projects, caller=caller)
        assert {project.name for project in own} == seen
        assert {f"{p.name}-{e.name}" for p in own for e in p.environments} == envs
        rows = world.run(secrets.list_secrets, caller=caller, filters=secrets.Filters(), **page)
        expected = {ref for ref, cluster in BOUND if places.listable(held, ref, cluster)}
        assert {row["secret_ref"] for row in rows} == expected

    for key, values in VALUES.items():
        for value in values:
            check([places.grant("secret.list", {key: value}, wide=False)])

    @given(grants)
    @hypothesis_settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    def run(held: list[Grant]) -> None:
        check(held)

    run()


def test_a_secret_is_found_by_all_of_its_labels(world: World, places: Places) -> None:
    labels = {
        "app/a": '{"env": "dev", "team": "a:b", "size": 3, "nest": {"b":1}}',
        "app/b": '{"env": "dev", "team": "x"}',
        "web/d": '{"env": "prod", "true": true, "quote": "\\"\\\\"}',
    }
    for ref, text in labels.items():
        statement = "UPDATE secrets SET labels = :labels WHERE secret_ref = :ref"
        assert world.write(statement, labels=text, ref=ref) == 1
    admin = world.person("lister", "admin")

    def found(*pairs: tuple[str, str]) -> set[str]:
        filters = secrets.Filters(labels=pairs)
        rows = world.run(secrets.list_secrets, caller=admin, filters=filters, before=None, limit=50)
        return {row["secret_ref"] for row in rows}

    assert found(("env", "dev")) == {"app/a", "app/b"}
    assert found(("env", "dev"), ("team", "a:b"), ("env", "dev")) == {"app/a"}
    assert found(("quote", '"\\')) == {"web/d"}
    for pairs in (
        [("env", "de")],
        [("env", "dev"), ("env", "prod")],
        [("env", "dev"), ("quote", '"\\')],
        [("size", "3")],
        [("nest", '{"b":1}')],
        [("true", "true")],
        [("true", "1")],
        [("Env", "dev")],
        [("team.x", "x")],
    ):
        assert found(*pairs) == set(), pairs
    # A label widens nothing: what is out of scope stays out.
    narrow = replace(
        places.person, grants=(places.grant("secret.list", {"project_id": "low"}, wide=False),)
    )
    filters = secrets.Filters(labels=(("env", "dev"),))
    rows = world.run(secrets.list_secrets, caller=narrow, filters=filters, before=None, limit=50)
    assert [row["secret_ref"] for row in rows] == ["app/b"]
