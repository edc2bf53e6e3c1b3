"""Bindings: what a project reaches, and that nobody reaches another's secret by its path."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from sb.errors import InvalidInputError
from sb.ids import new_id
from sb.ops import binding_reach, bindings, projects, secrets
from sb.ops.callers import Caller
from sb.ops.errors import (
    ConnectionDisabledError,
    ConnectionNotFoundError,
    EnvironmentNotInProjectError,
    OutOfScopeProjectError,
    ProviderConnectionRequiredError,
    ProviderTypeMismatchError,
)
from sb.ops.tenancy_errors import (
    BindingExistsError,
    BindingNotFoundError,
    ProjectArchivedError,
    ProjectNotFoundError,
    SecretNotFoundError,
    SecretOutOfScopeError,
)
from tests.ops.estate import Estate, place
from tests.ops.refusals import at_once, kinds
from tests.ops.world import NOW, World, at

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"


class Neighbours:
    """Two teams with a project each, a head of each, a connection, and the first one's secret."""

    def __init__(self, world: World) -> None:
        self.world, self.estate = world, Estate.of(world)
        self.connection = world.connection(cluster="east")
        self.mine, self.theirs = (self.estate.team(name) for name in ("mine", "theirs"))
        self.project = self.estate.project("p", self.mine)
        self.foreign = self.estate.project("q", self.theirs)
        self.head, self.other = self.estate.head(self.mine), self.estate.head(self.theirs)
        row = self.estate.bind(self.project, place(), self.head, allowed_keys=["USER"])
        self.secret = str(row["secret_id"])


@pytest.fixture
def estate(world: World) -> Estate:
    return Estate.of(world)


@pytest.fixture
def near(world: World) -> Neighbours:
    return Neighbours(world)


def listed(world: World, caller: Caller, **filters: Any) -> set[str]:
    rows = world.run(
        secrets.list_secrets,
        caller=caller,
        filters=secrets.Filters(**filters),
        before=None,
        limit=50,
    )
    for row in rows:
        world.run(secrets.show, caller=caller, secret_id=row["id"])
    return {row["secret_ref"] for row in rows}


def test_bind_by_place_registers_the_secret_once(world: World, near: Neighbours) -> None:
    (secret,) = world.rows("SELECT * FROM secrets")
    assert (secret["cluster_name"], secret["provider_connection_id"]) == ("east", near.connection)
    second = near.estate.project("p2", near.mine)
    row = near.estate.bind(second, place(cluster_name="east"), near.head)
    assert (row["secret_id"], row["allowed_ops"], row["allowed_keys"]) == (
        near.secret,
        ["read"],
        None,
    )
    (event,) = world.events(action="secret.register")
    assert (event.actor, event.resource) == (near.head.actor, f"secret:{near.secret}")
    created = world.events(action="secret_binding.create")
    assert created[0].metadata["after"]["allowed_keys"] == ["USER"]
    with pytest.raises(BindingExistsError):
        near.estate.bind(second, place(), near.head)
    with pytest.raises(BindingExistsError):
        near.estate.bind(second, near.secret, near.head)


def test_bind_pins_the_one_connection_or_asks_which(world: World, estate: Estate) -> None:
    project_id = estate.project("p")
    assert estate.bind(project_id, place("a/none"))["provider_connection_id"] is None
    east = world.connection(cluster="east")
    assert estate.bind(project_id, place("a/one"))["provider_connection_id"] == east
    west = world.connection(cluster="west")
    with pytest.raises(ProviderConnectionRequiredError):
        estate.bind(project_id, place("a/two"))
    row = estate.bind(project_id, place("a/two", cluster_name="west"))
    assert row["provider_connection_id"] == west
    row = estate.bind(project_id, place("a/two", provider_connection_id=east))
    assert (row["cluster_name"], row["provider_connection_id"]) == ("east", east)
    vault = world.connection("vault")
    for error, more in (
        (ConnectionNotFoundError, {"provider_connection_id": MISSING}),
        (ProviderTypeMismatchError, {"provider_connection_id": vault}),
        (InvalidInputError, {"provider_connection_id": east, "cluster_name": "west"}),
    ):
        with pytest.raises(error):
            estate.bind(project_id, place("a/three", **more))
    world.write("UPDATE provider_connections SET status = 'disabled' WHERE id = :id", id=east)
    with pytest.raises(ConnectionDisabledError):
        estate.bind(project_id, place("a/three", provider_connection_id=east))
    assert world.rows("SELECT id FROM secrets WHERE secret_ref = 'a/three'") == []


def test_bind_finds_the_one_connection_of_a_cluster_among_many(
    world: World, estate: Estate
) -> None:
    for _ in range(3):
        world.connection(cluster="east")
    west = world.connection(cluster="west")
    row = estate.bind(estate.project("p"), place(cluster_name="west"))
    assert row["provider_connection_id"] == west


def test_a_connection_of_another_cluster_is_refused_as_one_that_is_not(
    world: World, near: Neighbours
) -> None:
    west, resting = world.connection(cluster="west"), world.connection(cluster="west")
    world.write("UPDATE provider_connections SET status = 'disabled' WHERE id = :id", id=resting)
    narrow = world.person("n", "head", {"team_id": near.mine, "cluster": "east"})
    for cluster in (None, "east", "west"):
        for connection in (west, resting, world.connection("vault", cluster="west"), MISSING):
            there = place("x/y", provider_connection_id=connection, cluster_name=cluster)
            error = world.refuse(
                OutOfScopeProjectError,
                bindings.create,
                caller=narrow,
                project_id=near.project,
                secret=there,
                limits=bindings.Limits(),
                now=NOW,
            )
            told = (error.details, error.audit and error.audit.metadata)
            assert told == ({}, {"error_kind": "out_of_scope_project", "permission": "secret.bind"})
    # Whoever binds on every cluster is told, and so is everybody of what is in their scope.
    with pytest.raises(ConnectionNotFoundError):
        near.estate.bind(near.project, place("x/y", provider_connection_id=MISSING), near.head)
    world.write("UPDATE provider_connections SET status = 'disabled'")
    with pytest.raises(ConnectionDisabledError):
        near.estate.bind(near.project, place("x/y", provider_connection_id=near.connection), narrow)


@pytest.mark.parametrize(
    "ref", ["/app/db", "app/db/", "app//db", "app/./db", "app/../db", " app/db", "app/db\n", ".."]
)
def test_a_second_spelling_of_a_path_is_refused(near: Neighbours, ref: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        near.estate.bind(near.foreign, place(ref), near.other)
    assert caught.value.details["fields"][0]["field"] == "secret_ref"


def test_a_foreign_secret_is_out_of_reach_by_any_name(world: World, near: Neighbours) -> None:
    far = world.connection(cluster="west")
    loose = world.connection()
    world.write("UPDATE provider_connections SET status = 'disabled' WHERE id = :id", id=loose)
    before = world.rows("SELECT * FROM secrets")
    for name in (
        place(cluster_name="east"),
        place(provider_connection_id=near.connection),
        place(provider_connection_id=near.connection, cluster_name="east"),
    ):
        with pytest.raises(SecretOutOfScopeError) as caught:
            near.estate.bind(near.foreign, name, near.other)
        # The answer does not tell whose it is.
        assert caught.value.details == {}
        for text in (near.project, near.mine, near.secret, near.connection):
            assert text not in repr(caught.value.public_message)
        assert caught.value.audit is not None
        assert caught.value.audit.metadata["target_secret_ref"] == "app/db"
    # By its id it is not even there.
    with pytest.raises(SecretNotFoundError):
        near.estate.bind(near.foreign, near.secret, near.other)
    world.write("UPDATE provider_connections SET status = 'active' WHERE id = :id", id=loose)
    # A connection that is known to lead nowhere else may lead there.
    with pytest.raises(SecretOutOfScopeError):
        near.estate.bind(near.foreign, place(provider_connection_id=loose), near.other)
    assert world.rows("SELECT * FROM secrets") == before
    # On another cluster it is another secret.
    row = near.estate.bind(near.foreign, place(provider_connection_id=far), near.other)
    assert row["secret_id"] != near.secret


def test_a_foreign_secret_that_names_no_place_is_out_of_reach_everywhere(
    world: World, estate: Estate
) -> None:
    mine, theirs = estate.team("mine"), estate.team("theirs")
    estate.bind(estate.project("p", mine), place())
    east = world.connection(cluster="east")
    with pytest.raises(SecretOutOfScopeError):
        estate.bind(
            estate.project("q", theirs), place(provider_connection_id=east), estate.head(theirs)
        )


def test_a_shared_secret_takes_every_project_that_has_it(world: World, near: Neighbours) -> None:
    both = near.estate.head(near.mine, near.theirs)
    row = near.estate.bind(near.foreign, place(), both, allowed_keys=["USER"])
    assert row["secret_id"] == near.secret
    third = near.estate.project("r", near.mine)
    # Now it is not the first one's alone any more.
    with pytest.raises(SecretOutOfScopeError):
        near.estate.bind(third, near.secret, near.head)
    assert near.estate.bind(third, near.secret)["created_by"] == near.estate.admin.actor


def test_who_binds_in_one_environment_binds_nothing_of_another(
    world: World, estate: Estate
) -> None:
    project = estate.project("p", estate.team("t"))
    dev, live = (estate.environment(project, name) for name in ("dev", "live"))
    line, vaults = world.connection(), world.connection("azure-kv")
    of_vaults = {"provider_type": "azure-kv", "provider_connection_id": vaults}
    for there in (
        place("app/db", provider_connection_id=line),
        place("app/old", provider_connection_id=None, cluster_name="east"),
        secrets.Place(secret_ref="app-db", **of_vaults),
    ):
        estate.bind(project, there, environment_id=live, allowed_keys=["PUBLIC"])
    world.write("UPDATE secrets SET provider_connection_id = NULL WHERE secret_ref = 'app/old'")
    world.role("binder", "secret.bind")
    binder = world.person("binder", "binder", {"environment_id": dev})
    # Other entries of the catalogue for what is the same secret, and the same entry.
    for there in (
        place("app/db", provider_connection_id=line),
        place("app/db", provider_connection_id=line, cluster_name="west"),
        place("app/old", provider_connection_id=line),
        secrets.Place(secret_ref="APP-db", **of_vaults),
    ):
        with pytest.raises(SecretOutOfScopeError):
            estate.bind(project, there, binder, environment_id=dev)
    own = estate.bind(project, place("app/own"), binder, environment_id=dev)
    world.write("UPDATE secrets SET cluster_name = '' WHERE id = :id", id=own["secret_id"])
    # Their own binding stands in their way nowhere.
    changes = {"allowed_ops": ["read", "patch"]}
    assert estate.rebind(project, own["secret_id"], binder, **changes)["allowed_ops"]


def test_a_secret_that_more_share_than_are_looked_at_takes_who_may_bind_everything(
    world: World, near: Neighbours
) -> None:
    both = near.estate.head(near.mine, near.theirs)

    def share(count: int) -> None:
        stamps = {"created_at": NOW, "updated_at": NOW}
        for n in range(count):
            project, team = new_id(), near.mine
            facts = {"name": f"many-{project}-{n}", "team_id": team, "status": "active", **stamps}
            world.insert("projects", id=project, **facts)
            reach = {"allowed_keys": None, "allowed_ops": ["read"], **stamps}
            world.insert("project_secrets", project_id=project, secret_id=near.secret, **reach)

    # With the first one's own they are as many as are looked at.
    share(binding_reach.MAX_SHARED - 1)
    assert near.estate.bind(near.foreign, near.secret, both)
    near.estate.unbind(near.foreign, near.secret, both)
    share(1)
    with pytest.raises(SecretOutOfScopeError):
        near.estate.bind(near.foreign, near.secret, both)
    assert near.estate.bind(near.foreign, near.secret)


def test_a_foreign_secret_is_not_widened_either(world: World, near: Neighbours) -> None:
    env = near.estate.environment(near.foreign, "dev")
    limits = {"allowed_keys": ["USER", "PORT"], "allowed_ops": ["read", "patch"]}
    near.estate.bind(near.foreign, near.secret, environment_id=env, **limits)
    rebind = partial(near.estate.rebind, near.foreign, near.secret, near.other)
    for wider in (
        {"allowed_keys": None},
        {"allowed_keys": ["USER", "ROOT"]},
        {"allowed_ops": ["read", "discover"]},
        {"environment_id": None},
        {"environment_id": near.estate.environment(near.foreign, "live")},
    ):
        with pytest.raises(SecretOutOfScopeError):
            rebind(**wider)
    row = rebind(allowed_keys=["USER"], allowed_ops=["read"])
    assert (row["allowed_keys"], row["environment_id"]) == (["USER"], env)
    # Neither is it by ending the binding and starting over.
    near.estate.unbind(near.foreign, near.secret, near.other)
    with pytest.raises(SecretOutOfScopeError):
        near.estate.bind(near.foreign, place(), near.other)


def test_two_projects_that_name_one_path_at_once_become_one(world: World, near: Neighbours) -> None:
    for n in range(5):
        calls = [
            partial(near.estate.bind, near.project, place(f"new/{n}"), near.head),
            partial(
                near.estate.bind, near.foreign, place(f"new/{n}", cluster_name="east"), near.other
            ),
        ]
        assert kinds(at_once(calls)) == {"ok": 1, "secret_out_of_scope": 1}


def test_bind_needs_the_permission_over_what_it_binds(world: World, near: Neighbours) -> None:
    env, live = (near.estate.environment(near.project, name) for name in ("dev", "live"))
    reader = world.person("dev", "developer", {"team_id": near.mine})
    narrow = world.person("n", "head", {"team_id": near.mine, "secret_ref_prefix": "team/"})
    in_dev = world.person("e", "head", {"environment_id": env})
    bind = near.estate.bind
    with pytest.raises(OutOfScopeProjectError) as caught:
        bind(near.project, place("team/x"), reader)
    assert caught.value.audit is not None
    with pytest.raises(OutOfScopeProjectError):
        bind(near.project, place("other/x"), narrow)
    assert bind(near.project, place("team/x"), narrow)
    for environment_id in (None, live):
        with pytest.raises(OutOfScopeProjectError):
            bind(near.project, place("dev/x"), in_dev, environment_id=environment_id)
    row = bind(near.project, place("dev/x"), in_dev, environment_id=env)
    with pytest.raises(OutOfScopeProjectError):
        near.estate.rebind(near.project, row["secret_id"], in_dev, environment_id=None)
    for target in (near.foreign, MISSING):
        with pytest.raises(ProjectNotFoundError):
            bind(target, place("x/y"), near.head)
    for op in (near.estate.rebind, near.estate.unbind):
        with pytest.raises(OutOfScopeProjectError):
            op(near.project, near.secret, reader)
        with pytest.raises(ProjectNotFoundError):
            op(near.foreign, near.secret, near.head)
        with pytest.raises(BindingNotFoundError):
            op(near.project, MISSING, near.head)


def test_environment_must_belong_to_the_project(near: Neighbours) -> None:
    alien = near.estate.environment(near.foreign, "dev")
    for environment_id in (alien, MISSING):
        with pytest.raises(EnvironmentNotInProjectError):
            near.estate.bind(near.project, place("x/y"), near.head, environment_id=environment_id)
        with pytest.raises(EnvironmentNotInProjectError):
            near.estate.rebind(near.project, near.secret, near.head, environment_id=environment_id)


def test_update_keeps_what_is_absent_and_says_when_it_widens(
    world: World, near: Neighbours
) -> None:
    env = near.estate.environment(near.project, "dev")
    rebind = partial(near.estate.rebind, near.project, near.secret, near.head)
    row = rebind(environment_id=env)
    assert (row["environment_id"], row["allowed_keys"]) == (env, ["USER"])
    row = rebind(allowed_ops=["patch", "read", "read"])
    assert (row["environment_id"], row["allowed_keys"]) == (env, ["USER"])
    assert row["allowed_ops"] == ["patch", "read"]
    assert rebind()["environment_id"] == env
    row = rebind(environment_id=None)
    assert (row["environment_id"], row["allowed_keys"]) == (None, ["USER"])
    assert rebind(allowed_keys=None)["allowed_keys"] is None
    events = world.events(action="secret_binding.update")
    assert [e.metadata["widened"] for e in events] == [False, True, True, True]
    assert events[-1].metadata["before"]["allowed_keys"] == ["USER"]


def test_archived_project_takes_no_more_and_lets_go(world: World, near: Neighbours) -> None:
    args = {"caller": near.head, "project_id": near.project, "status": "archived", "now": NOW}
    world.run(projects.set_status, **args)
    with pytest.raises(ProjectArchivedError):
        near.estate.bind(near.project, place("x/y"), near.head)
    with pytest.raises(ProjectArchivedError):
        near.estate.rebind(near.project, near.secret, near.head, allowed_keys=None)
    near.estate.unbind(near.project, near.secret, near.head)
    (event,) = world.events(action="secret_binding.delete")
    assert event.metadata["before"]["allowed_keys"] == ["USER"]


def test_catalogue_shows_what_is_in_scope(world: World, near: Neighbours) -> None:
    env = near.estate.environment(near.foreign, "dev")
    west = world.connection(cluster="west")
    near.estate.bind(near.foreign, place("web/x", provider_connection_id=west), environment_id=env)
    near.estate.bind(near.foreign, place("web/y", provider_connection_id=west))
    near.estate.unbind(
        near.foreign,
        near.estate.bind(near.foreign, place("lost/z", cluster_name="west"))["secret_id"],
    )
    live = near.estate.environment(near.foreign, "live")
    everything = {"app/db", "web/x", "web/y", "lost/z"}
    cases: list[tuple[dict[str, str], set[str]]] = [
        ({}, everything),
        ({"team_id": near.mine}, {"app/db"}),
        ({"project_id": near.foreign}, {"web/x", "web/y"}),
        ({"environment_id": env}, {"web/x", "web/y"}),
        ({"environment_id": live}, {"web/y"}),
        ({"project_id": near.foreign, "secret_ref_prefix": "web/x"}, {"web/x"}),
        ({"secret_ref_prefix": "lost/"}, {"lost/z"}),
        ({"secret_ref_prefix": "LOST/"}, set()),
        ({"cluster": "west"}, everything - {"app/db"}),
        ({"provider": "vault"}, set()),
        ({"team_id": near.mine, "cluster": "west"}, set()),
    ]
    for scope, expected in cases:
        person = world.person("reader", "approver", scope)
        assert listed(world, person) == expected, scope
        ids = {row["secret_ref"]: row["id"] for row in world.rows("SELECT * FROM secrets")}
        for hidden in everything - expected:
            args = {"caller": person, "secret_id": ids[hidden]}
            world.refuse(SecretNotFoundError, secrets.show, **args)
    admin = near.estate.admin
    for filters, expected in (
        ({"project_id": near.foreign}, {"web/x", "web/y"}),
        ({"ref_prefix": "web/"}, {"web/x", "web/y"}),
        ({"ref_prefix": "%"}, set()),
        ({"cluster_name": "east"}, {"app/db"}),
        ({"status": "missing"}, set()),
        ({"provider_type": "vault"}, set()),
    ):
        assert listed(world, admin, **filters) == expected, filters
    # Filtering by a project one may not see tells nothing about its bindings.
    mine = world.person("mine", "approver", {"team_id": near.mine})
    near.estate.bind(near.foreign, near.secret)
    assert listed(world, mine, project_id=near.foreign) == set()
    world.refuse(SecretNotFoundError, secrets.show, caller=mine, secret_id=MISSING)


def test_bindings_of_a_project_are_listed_in_scope(world: World, near: Neighbours) -> None:
    env = near.estate.environment(near.project, "dev")
    near.estate.bind(near.project, place("web/x"), near.head, environment_id=env)

    def refs(caller: Caller, **filters: Any) -> set[str]:
        args = {"caller": caller, "project_id": near.project, "before": None, "limit": 9}
        return {row["secret_ref"] for row in world.run(bindings.list_bindings, **args, **filters)}

    reader = world.person("dev", "developer", {"team_id": near.mine})
    narrow = world.person(
        "narrow", "developer", {"team_id": near.mine, "secret_ref_prefix": "web/"}
    )
    assert refs(reader) == {"app/db", "web/x"}
    assert refs(reader, environment_id=env) == {"web/x"}
    assert refs(narrow) == {"web/x"}
    args = {"project_id": near.project, "secret_id": near.secret}
    world.refuse(BindingNotFoundError, bindings.show, caller=narrow, **args)
    world.refuse(ProjectNotFoundError, bindings.show, caller=near.other, **args)
    page = world.run(
        bindings.list_bindings,
        caller=reader,
        project_id=near.project,
        before=(at(seconds=1), MISSING),
        limit=1,
    )
    assert len(page) == 1
