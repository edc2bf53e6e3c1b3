"""The queue of somebody who decides: exactly what they can vote on now, found by scope in SQL."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sb.auth.access import Grant
from sb.ids import new_id
from sb.ops import requests
from sb.ops.callers import Caller
from tests.ops.world import NOW, World, at

STAMPS = {"created_at": NOW, "updated_at": NOW}


@dataclass
class Tree:
    """Three teams below each other and one beside them, each with a project and an environment."""

    world: World
    workflow_id: str
    requester: Caller
    teams: dict[str, str] = field(default_factory=dict)
    projects: dict[str, str] = field(default_factory=dict)
    environments: dict[str, str] = field(default_factory=dict)
    seconds: itertools.count[int] = field(default_factory=itertools.count)

    @classmethod
    def build(cls, world: World) -> Tree:
        tree = cls(world=world, workflow_id=world.workflow(), requester=world.person("asks"))
        parents = {"top": None, "middle": "top", "leaf": "middle", "beside": None}
        for name, parent in parents.items():
            team_id, project_id, env_id = new_id(), new_id(), new_id()
            tree.teams[name], tree.projects[name], tree.environments[name] = (
                team_id,
                project_id,
                env_id,
            )
            world.insert(
                "teams",
                id=team_id,
                name=name,
                parent_team_id=tree.teams[parent] if parent else None,
                status="active",
                **STAMPS,
            )
            world.insert(
                "projects", id=project_id, name=name, team_id=team_id, status="active", **STAMPS
            )
            world.insert(
                "environments",
                id=env_id,
                project_id=project_id,
                name="dev",
                type="dev",
                kind="non_prod",
                risk_level=1,
                **STAMPS,
            )
        return tree

    def ask(self, project: str | None, **changes: Any) -> str:
        """Insert a pending request about this project, newer than the one before."""
        request_id, moment = new_id(), at(seconds=next(self.seconds))
        facts = {
            "requester_id": self.requester.user_id,
            "project_id": self.projects[project] if project else None,
            "environment_id": self.environments[project] if project else None,
            "target_secret_ref": "app/db",
            "snap_approver_role_id": None,
            "snap_allow_self_approval": False,
            "status": "pending",
            "expires_at": at(days=1),
            **changes,
        }
        ttls = ("wrap_ttl_created", "wrap_ttl_approved", "wrap_ttl_claimed", "request_ttl")
        self.world.insert(
            "access_requests",
            id=request_id,
            type="read",
            justification="x",
            workflow_id=self.workflow_id,
            target_provider_type="file",
            target_provider_config={},
            target_keys=[],
            target_scope={},
            snap_min_approvers=2,
            snap_requires_security_approval=False,
            **{f"snap_{name}_seconds": 60 for name in ttls},
            **facts,
            created_at=moment,
            updated_at=moment,
        )
        return request_id


@pytest.fixture
def tree(world: World) -> Tree:
    return Tree.build(world)


def listed(world: World, caller: Caller, limit: int = 50, **filters: Any) -> list[requests.Seen]:
    found: list[requests.Seen] = world.run(
        requests.list_requests,
        caller=caller,
        filters=requests.Filters(**filters),
        before=None,
        limit=limit,
        now=NOW,
    )
    return found


def queue(world: World, caller: Caller, **filters: Any) -> list[str]:
    return [s.row["id"] for s in listed(world, caller, needs_my_decision=True, **filters)]


@pytest.mark.parametrize(
    ("team", "expected"),
    [
        ("top", ["top", "middle", "leaf"]),
        ("middle", ["middle", "leaf"]),
        ("leaf", ["leaf"]),
        ("beside", ["beside"]),
    ],
)
def test_list_as_a_teams_approver_shows_exactly_the_subtree(
    world: World, tree: Tree, team: str, expected: list[str]
) -> None:
    made = {name: tree.ask(name) for name in ("top", "beside", "middle", "leaf")}
    tree.ask(None)
    approver = world.person("approver", "approver", {"team_id": tree.teams[team]})
    wanted = [made[name] for name in reversed(expected)]
    assert queue(world, approver) == sorted(wanted, key=list(made.values()).index, reverse=True)
    assert {seen.row["id"] for seen in listed(world, approver)} == set(wanted)


def test_list_what_needs_a_decision_leaves_out_what_the_caller_cannot_decide(
    world: World, tree: Tree
) -> None:
    approver = world.person("approver", "approver", {"team_id": tree.teams["top"]})
    other_role = world.role("other approvers", "secret.approve")
    own = {"requester_id": approver.user_id}
    open_to_all = tree.ask("leaf")
    by_role = tree.ask("leaf", snap_approver_role_id=world.role("approver"))
    own_allowed = tree.ask("leaf", **own, snap_allow_self_approval=True)
    tree.ask("leaf", **own)
    tree.ask("leaf", expires_at=NOW)
    tree.ask("leaf", status="rejected")
    tree.ask("leaf", snap_approver_role_id=other_role)
    voted = tree.ask("leaf")
    assert queue(world, approver) == [voted, own_allowed, by_role, open_to_all]
    world.insert(
        "approvals",
        id=new_id(),
        request_id=voted,
        approver_id=approver.user_id,
        decision="approve",
        lane="source",
        created_at=NOW,
    )
    assert queue(world, approver) == [own_allowed, by_role, open_to_all]
    filters = {"requester_id": approver.user_id, "project_id": tree.projects["leaf"]}
    assert queue(world, approver, **filters, type="read", status="pending") == [own_allowed]
    assert queue(world, approver, status="rejected") == []
    assert queue(world, world.person("reader", "developer")) == []
    assert queue(world, tree.requester) == []


def test_list_as_a_global_approver_shows_requests_without_a_project(
    world: World, tree: Tree
) -> None:
    bare, bound = tree.ask(None), tree.ask("leaf")
    needs_role = tree.ask(None, snap_approver_role_id=world.role("approver"))
    approver = world.person("approver", "approver")
    assert queue(world, approver) == [needs_role, bound, bare]
    prefix = world.person("prefix", "approver", {"secret_ref_prefix": "app/"})
    assert queue(world, prefix) == [bound]


@pytest.mark.parametrize(
    "prefix", ['qu"ote', "back\\slash", "{brace,", "É%_", "line\nbreak", "NULL", " "]
)
def test_list_by_prefix_takes_every_character_for_itself(
    world: World, tree: Tree, prefix: str
) -> None:
    within = [tree.ask("leaf", target_secret_ref=f"{prefix}{rest}") for rest in ("", "/x")]
    tree.ask("leaf", target_secret_ref="other")
    tree.ask("leaf", target_secret_ref=prefix[:-1] or "x")
    approver = world.person("approver", "approver", {"secret_ref_prefix": prefix})
    assert [seen.row["id"] for seen in listed(world, approver)] == within[::-1]
    assert queue(world, approver) == within[::-1]
    assert [s.row["id"] for s in listed(world, approver, limit=1)] == within[1:]


def test_list_by_prefix_knows_long_paths_to_their_end(world: World, tree: Tree) -> None:
    # Longer than an entry of an index may be, and nothing in it that could be pressed together.
    long = "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(1020))
    within = [tree.ask("leaf", target_secret_ref=f"{long}{rest}") for rest in ("/a", "/b")]
    tree.ask("leaf", target_secret_ref=f"{long[:600]}/c")
    approver = world.person("approver", "approver", {"secret_ref_prefix": f"{long}/"})
    assert [seen.row["id"] for seen in listed(world, approver)] == within[::-1]
    first = world.person("first", "approver", {"secret_ref_prefix": f"{long}/a"})
    assert [seen.row["id"] for seen in listed(world, first)] == within[:1]


def test_list_by_prefix_shows_all_requests_however_many_paths_there_are(
    world: World, tree: Tree
) -> None:
    approver = world.person("approver", "approver", {"secret_ref_prefix": "many/"})
    made = []
    for number in range(requests.MAX_LISTED_REFS + 2):
        made.append(tree.ask("leaf", target_secret_ref=f"many/{number}"))
        if number == 0 or number + 1 >= requests.MAX_LISTED_REFS:
            found = [seen.row["id"] for seen in listed(world, approver, limit=500)]
            assert found == made[::-1]
    tree.ask("leaf", target_secret_ref="many")
    assert len(listed(world, approver, limit=500)) == len(made)


SCOPE_KEYS = ("team_id", "project_id", "environment_id", "secret_ref_prefix", "provider", "cluster")
PLACES = ("top", "middle", "leaf", "beside")
SCOPES = st.lists(st.sampled_from(SCOPE_KEYS), max_size=3, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: st.sampled_from(PLACES) for key in keys})
)


def test_list_for_random_grants_agrees_with_what_the_caller_may_do(
    world: World, tree: Tree
) -> None:
    roles = [world.role("approver"), world.role("second approvers", "secret.approve")]
    person = world.person("somebody")
    for place, role_id in itertools.product((*PLACES, None), (None, *roles)):
        for ref in ("app/db", "other"):
            tree.ask(place, snap_approver_role_id=role_id, target_secret_ref=ref)
    tree.ask("leaf", requester_id=person.user_id)
    subtree = {"top": ("top", "middle", "leaf"), "middle": ("middle", "leaf")}

    def grant(role_id: str, permission: str, places: dict[str, str]) -> Grant:
        ids = {
            "team_id": tree.teams,
            "project_id": tree.projects,
            "environment_id": tree.environments,
        }
        plain = {"secret_ref_prefix": "app/", "provider": "file", "cluster": "east"}
        scope = {
            key: ids[key][place] if key in ids else plain[key] for key, place in places.items()
        }
        teams = subtree.get(places.get("team_id", ""), (places.get("team_id", ""),))
        return Grant(
            role_id=role_id,
            role_name="r",
            permissions=frozenset({permission}),
            scope=scope,
            team_ids=frozenset(tree.teams[name] for name in teams if name),
        )

    everything = listed(world, world.person("all", "approver"), limit=200)
    grants = st.lists(
        st.builds(
            grant,
            st.sampled_from(roles),
            st.sampled_from(["secret.approve", "secret.list", "audit.read"]),
            SCOPES,
        ),
        max_size=3,
    )

    @given(grants)
    @hypothesis_settings(
        max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    def run(held: list[Grant]) -> None:
        caller = replace(person, grants=tuple(held))
        seen = [s.row["id"] for s in everything if requests.may_see(s.row, caller=caller)]
        decidable = [s.row["id"] for s in everything if requests.may_decide(s.row, caller=caller)]
        assert [s.row["id"] for s in listed(world, caller, limit=200)] == seen
        found = listed(world, caller, limit=200, needs_my_decision=True)
        assert [s.row["id"] for s in found] == decidable
        assert all("approve" in s.allowed_actions for s in found)

    run()
