"""What lists are filtered by: the same as `allowed` would allow, in no more scopes than needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sb.auth.access import Grant, Resource, allowed, visibility

TEAMS = ("top", "left", "right", "low")
#: What each key of a scope may say, and a resource be.
VALUES = {
    "team_id": TEAMS,
    "project_id": ("p", "q"),
    "environment_id": ("e", "f"),
    "secret_ref_prefix": ("a", "a/", "a/b", "ab", "b"),
    "provider": ("vault", "file"),
    "cluster": ("east",),
}
BELOW = {
    "top": frozenset(TEAMS),
    "left": frozenset({"left", "low"}),
    "right": frozenset({"right"}),
    "low": frozenset({"low"}),
}
SCOPES = st.lists(st.sampled_from(sorted(VALUES)), max_size=3, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: st.sampled_from(VALUES[key]) for key in keys})
)
RESOURCES = st.builds(
    Resource,
    **{
        {"secret_ref_prefix": "secret_ref"}.get(key, key): st.sampled_from((*values, None))
        for key, values in VALUES.items()
    },
)
GRANTS = st.lists(
    st.builds(lambda *asked: held(*asked), SCOPES, st.sampled_from(["secret.list", "audit.read"])),
    max_size=12,
)


def held(scope: Mapping[str, str], permission: str = "secret.list", **changes: Any) -> Grant:
    below: frozenset[str] = BELOW.get(scope.get("team_id", ""), frozenset())
    values = {"team_ids": below, **changes}
    return Grant(
        role_id="r", role_name="r", permissions=frozenset({permission}), scope=scope, **values
    )


def within(scope: Mapping[str, Any], resource: Resource) -> bool:
    """Tell what the list queries tell of a row."""
    ref = resource.secret_ref
    return (
        ("team_ids" not in scope or resource.team_id in scope["team_ids"])
        and ("secret_ref_prefix" not in scope or (ref or "").startswith(scope["secret_ref_prefix"]))
        and all(
            getattr(resource, key) == value
            for key, value in scope.items()
            if key not in ("team_ids", "secret_ref_prefix")
        )
    )


def leads_into(scope: Mapping[str, Any], resource: Resource) -> bool:
    """Tell what the lists of projects and environments tell: kinds of stores lead nowhere."""
    places = {k: v for k, v in scope.items() if k in ("team_ids", "project_id", "environment_id")}
    return bool(places) and within(places, resource)


@given(GRANTS, st.lists(RESOURCES, min_size=1, max_size=8))
@hypothesis_settings(max_examples=600, deadline=None)
def test_scopes_cover_what_the_grants_do_and_no_more(
    grants: list[Grant], resources: list[Resource]
) -> None:
    seen = visibility(grants, ["secret.list"])
    mine = [grant for grant in grants if "secret.list" in grant.permissions]
    written = [one_by_one(grant) for grant in mine]
    for resource in resources:
        found = seen.everything or any(within(scope, resource) for scope in seen.scopes)
        assert found == allowed(grants, "secret.list", resource)
        if not seen.everything:
            leading = any(leads_into(scope, resource) for scope in seen.scopes)
            assert leading == any(leads_into(scope, resource) for scope in written)
    if not seen.everything:
        told = {team for scope in seen.scopes for team in scope.get("team_ids", ())}
        assert told == {team for scope in written for team in scope.get("team_ids", ())}
    assert len(seen.scopes) <= len({frozenset(scope.items()) for scope in written})


def one_by_one(grant: Grant) -> dict[str, Any]:
    """Return the scope as a list query would read it were each grant written out."""
    scope = {key: value for key, value in grant.scope.items() if key != "team_id"}
    return {**scope, "team_ids": grant.team_ids} if "team_id" in grant.scope else scope


def test_grants_that_differ_in_team_alone_are_one_scope_with_each_team_once() -> None:
    grants = [held({"team_id": team}) for team in TEAMS]
    grants += [held({"team_id": team, "provider": "vault"}) for team in TEAMS]
    assert visibility(grants, ["secret.list"]).scopes == [{"team_ids": sorted(TEAMS)}]


def test_a_scope_that_another_covers_is_left_out() -> None:
    scopes: list[dict[str, str]] = [
        {"project_id": "p"},
        {"project_id": "p", "provider": "vault"},
        {"secret_ref_prefix": "a/"},
        {"secret_ref_prefix": "a/b", "cluster": "east"},
        {"project_id": "q", "secret_ref_prefix": "a/b"},
    ]
    found = visibility([held(scope) for scope in scopes * 2], ["secret.list"]).scopes
    assert found == [scopes[0], scopes[2], scopes[4]]


def test_a_grant_for_a_team_that_is_gone_is_no_scope() -> None:
    grants = [held({"team_id": "top"}, team_ids=frozenset())]
    assert visibility(grants, ["secret.list"]).scopes == []
