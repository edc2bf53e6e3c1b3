"""Production sticks to a secret: no binding, environment or spelling leads past its rules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from sb.errors import InvalidInputError
from sb.ids import new_id
from sb.ops import connections, secret_kinds, secrets
from sb.ops.callers import Caller
from sb.ops.errors import AutoApprovalForbiddenError
from sb.ops.tenancy_errors import (
    ProductionSecretError,
    SecretInProductionError,
    SecretNotFoundError,
    SecretOutOfScopeError,
)
from tests.ops.estate import Estate, place
from tests.ops.refusals import at_once, kinds
from tests.ops.world import NOW, TEST, World, at


class Ground:
    """Two projects of one head, each with an environment of each kind, and a secret to bind."""

    def __init__(self, world: World) -> None:
        self.world, self.estate = world, Estate.of(world)
        team = self.estate.team("t")
        self.head = self.estate.head(team)
        self.line = world.connection()
        self.dev: dict[str, str] = {}
        self.live: dict[str, str] = {}
        self.projects = {name: self.estate.project(name, team) for name in ("a", "b")}
        for name, project in self.projects.items():
            self.dev[name] = self.estate.environment(project, "dev")
        # Only one of them has production.
        self.live["a"] = self.estate.environment(self.projects["a"], "live", kind="prod")
        # Where production is not concerned nobody is asked.
        world.rule({"environment_kind": "non_prod"}, auto_approve=True, min_approvers=0)
        world.rule({"project_id": self.projects["b"]}, 5, auto_approve=True, min_approvers=0)
        self.asks = world.person("asks", "developer")

    def bind(self, project: str = "a", env: str | None = None, ref: str = "app/db") -> str:
        there = place(ref, provider_connection_id=self.line)
        row = self.estate.bind(self.projects[project], there, self.head, environment_id=env)
        return str(row["secret_id"])

    def unbind(self, secret_id: str, project: str = "a") -> None:
        self.estate.unbind(self.projects[project], secret_id, self.head)

    def ask(
        self, project: str | None = "a", environment: str | None = "dev", **more: Any
    ) -> str | None:
        """Return the kind by which the rules chose, or the code of a refusal."""
        facts = {"target_secret_ref": "app/db", "target_provider_type": "file", **more}
        if project is not None:
            facts.update(project_id=self.projects[project], environment=environment)
        else:
            facts.setdefault("provider_connection_id", self.line)
        try:
            request_id = self.world.read(self.asks, "A", **facts)
        except (AutoApprovalForbiddenError, ProductionSecretError) as refusal:
            return refusal.code
        rows = self.world.rows(
            "SELECT snap_environment_kind AS kind FROM access_requests WHERE id = :id",
            id=request_id,
        )
        return str(rows[0]["kind"])

    def told(self) -> list[dict[str, Any]]:
        return [dict(event.metadata) for event in self.world.events(action=secret_kinds.CHANGE)]


@pytest.fixture
def ground(world: World) -> Ground:
    return Ground(world)


def moved(ground: Ground) -> None:
    secret_id = ground.bind(env=ground.live["a"])
    ground.estate.rebind(
        ground.projects["a"], secret_id, ground.head, environment_id=ground.dev["a"]
    )


def anew(ground: Ground) -> None:
    ground.unbind(ground.bind(env=ground.live["a"]))
    ground.bind(env=ground.dev["a"])


def everywhere(ground: Ground) -> None:
    ground.bind()


def weaker(ground: Ground) -> None:
    ground.bind()
    ground.estate.environment(ground.projects["a"], "fresh", ground.head)


def gone(ground: Ground) -> None:
    ground.bind()
    ground.world.write("UPDATE environments SET deleted_at = :t WHERE kind = 'prod'", t=NOW)


def tried(ground: Ground) -> None:
    secret_id = ground.bind(env=ground.dev["a"])
    for env in (ground.live["a"], ground.dev["a"]):
        ground.estate.rebind(ground.projects["a"], secret_id, ground.head, environment_id=env)


def became(ground: Ground) -> None:
    ground.bind("b")
    ground.unbind(ground.bind("a", ground.dev["a"]))
    ground.estate.environment(ground.projects["b"], "live", ground.head, kind="prod")
    ground.bind("a", ground.dev["a"])


WAYS = [moved, anew, everywhere, weaker, gone, tried, became]


@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
def test_the_rules_see_a_secret_of_production_however_it_is_bound(
    ground: Ground, way: Callable[[Ground], None]
) -> None:
    way(ground)
    assert ground.ask(environment="fresh" if way is weaker else "dev") == "production_secret"


def test_a_rule_for_the_production_environment_itself_matches(ground: Ground) -> None:
    own = ground.world.rule({"environment_id": ground.live["a"]}, 900)
    ground.bind(env=ground.live["a"])
    assert ground.ask(environment="live") == "prod"
    assert ground.world.rows("SELECT workflow_id FROM access_requests")[0]["workflow_id"] == own


def test_another_project_without_production_opens_no_other_way(ground: Ground) -> None:
    ground.bind(env=ground.live["a"])
    ground.bind("b", ground.dev["b"])
    assert ground.ask("b") == "production_secret"


def test_production_asks_for_what_is_bound_to_every_environment(ground: Ground) -> None:
    ground.bind()
    assert ground.ask(environment="live") == "prod"


def test_what_nobody_decides_is_refused_without_a_project_too(ground: Ground) -> None:
    ground.world.rule({"secret_ref_prefix": "app/"}, 900, auto_approve=True, min_approvers=0)
    assert ground.ask(None) == "None"
    ground.bind(env=ground.live["a"])
    assert ground.ask(None) == "auto_approval_forbidden"


def test_a_request_without_a_project_is_for_production_where_its_secret_is(ground: Ground) -> None:
    assert ground.ask(None) == "None"
    ground.bind(env=ground.live["a"])
    assert ground.ask(None) == "prod"
    # Not knowing which connection it is, nobody can say that it is another secret.
    ground.world.write("UPDATE secrets SET provider_connection_id = NULL")
    assert ground.ask(None) == "prod"
    assert ground.ask(None, target_secret_ref="APP/DB") == "None"


def test_what_is_asked_for_without_a_connection_may_be_behind_any(
    ground: Ground, world: World
) -> None:
    secret_id = ground.bind(env=ground.live["a"])
    # There is none that works: an agent without a connection will do it.
    world.write("UPDATE provider_connections SET status = 'disabled'")
    assert ground.ask(None, provider_connection_id=None) == "prod"
    world.write("UPDATE secrets SET provider_connection_id = NULL, cluster_name = 'west'")
    assert ground.ask(None, provider_connection_id=None) == "prod"
    # On another cluster it is another secret.
    east = world.connection(cluster="east")
    assert ground.ask(None, provider_connection_id=east) == "None"
    world.write("UPDATE secrets SET cluster_name = 'east' WHERE id = :id", id=secret_id)
    assert ground.ask(None, provider_connection_id=east) == "prod"


def test_the_same_path_elsewhere_is_another_secret(ground: Ground, world: World) -> None:
    ground.bind(env=ground.live["a"])
    other = world.connection()
    there = place("app/db", provider_connection_id=other)
    ground.estate.bind(ground.projects["a"], there, environment_id=ground.dev["a"])
    ground.bind(ref="app/db2", env=ground.dev["a"])
    assert ground.ask(provider_connection_id=other) == "non_prod"
    assert ground.ask(target_secret_ref="app/db2") == "non_prod"
    assert ground.ask(None, provider_connection_id=other) == "None"
    assert ground.ask(None, target_secret_ref="app") == "None"


def test_a_prefix_is_no_other_spelling(ground: Ground, world: World) -> None:
    def vault(**scope: str) -> str:
        row = world.run(
            connections.create,
            by=TEST,
            name=f"v-{len(scope)}",
            provider_type="vault",
            auth_method="none",
            scope=scope,
            cluster_name=None,
            description=None,
            now=NOW,
        )
        return str(row["id"])

    line = vault(kvPrefix="team", kvMount="kv")
    there = secrets.Place(provider_type="vault", secret_ref="app/db", provider_connection_id=line)
    ground.estate.bind(ground.projects["a"], there, environment_id=ground.live["a"])

    def ask(ref: str, **config: str) -> str | None:
        return ground.ask(
            None,
            target_provider_type="vault",
            target_secret_ref=ref,
            target_provider_config=config,
            provider_connection_id=line,
        )

    assert ask("team/app/db") == "prod"
    assert ask("app/db", kvPrefix="team") == "prod"
    assert ask("db", kvPrefix="team/app", kvMount="kv") == "prod"
    for odd in ("/kv/", "kv/", "k//v"):
        with pytest.raises(InvalidInputError):
            ask("app/db", kvPrefix="team", kvMount=odd)
    assert ask("app/db", kvPrefix="team", kvMount="secret") == "None"
    assert ask("app/db") == "None"
    assert ask("app/db", kvPrefix="other/team") == "None"
    # Without a prefix of its connection, it may be its agent's that a request takes the place of.
    world.write("UPDATE provider_connections SET scope = :s WHERE id = :id", s={}, id=line)
    assert ask("app/db", kvPrefix="team") == "prod"
    assert ask("app", kvPrefix="team") == "None"
    # Bound without any, it may be behind one that has a prefix.
    scope = {"kvPrefix": "team"}
    world.write("UPDATE provider_connections SET scope = :s WHERE id = :id", s=scope, id=line)
    world.write("UPDATE secrets SET provider_connection_id = NULL")
    assert ask("team/app/db") == "prod"
    assert ask("db", kvPrefix="team/app") == "prod"
    assert ask("team/app/dc") == "None"


def test_a_vault_name_has_one_meaning_in_either_case(ground: Ground, world: World) -> None:
    line = world.connection("azure-kv")
    there = secrets.Place(
        provider_type="azure-kv", secret_ref="App-DB", provider_connection_id=line
    )
    ground.estate.bind(ground.projects["a"], there, environment_id=ground.live["a"])
    facts = {"target_provider_type": "azure-kv", "provider_connection_id": line}
    assert ground.ask(None, target_secret_ref="app-db", **facts) == "prod"
    assert ground.ask(None, target_secret_ref="app-dc", **facts) == "None"


def test_who_writes_the_rules_of_everything_says_of_which_kind_a_secret_is(
    ground: Ground, world: World
) -> None:
    secret_id = ground.bind(env=ground.dev["a"])
    assert ground.told() == []

    def change(kind: str, caller: Caller = ground.estate.admin) -> Any:
        return world.run(
            secret_kinds.change,
            caller=caller,
            secret_id=secret_id,
            kind=kind,
            reason="a copy",
            now=at(hours=1),
        )

    assert change("prod")["kind"] == "prod"
    assert change("prod")["kind"] == "prod"
    assert ground.ask() == "production_secret"
    assert change("non_prod")["kind"] == "non_prod"
    assert change("non_prod")["kind"] == "non_prod"
    assert ground.ask() == "non_prod"
    assert [row["after"]["kind"] for row in ground.told()] == ["prod", "non_prod"]
    assert [row["reason"] for row in ground.told()] == ["a copy", "a copy"]
    world.refuse(
        SecretNotFoundError,
        secret_kinds.change,
        caller=ground.head,
        secret_id=secret_id,
        kind="non_prod",
        reason="mine",
        now=NOW,
    )


def test_a_moved_binding_makes_its_secret_production_at_once(ground: Ground) -> None:
    secret_id = ground.bind(env=ground.dev["a"])
    ground.estate.rebind(ground.projects["a"], secret_id, ground.head, environment_id=None)
    assert [row["after"]["kind"] for row in ground.told()] == ["prod"]


def test_what_a_production_environment_has_is_not_let_go(ground: Ground, world: World) -> None:
    secret_id = ground.bind(env=ground.live["a"])

    def let_go() -> Any:
        return world.run(
            secret_kinds.change,
            caller=ground.estate.admin,
            secret_id=secret_id,
            kind="non_prod",
            reason="moved",
            now=NOW,
        )

    with pytest.raises(SecretInProductionError) as caught:
        let_go()
    assert caught.value.details == {"field": "kind", "bindings": 1}
    # Meant for every environment, it may be.
    ground.estate.rebind(ground.projects["a"], secret_id, ground.head, environment_id=None)
    assert ground.ask() == "production_secret"
    let_go()
    assert ground.ask() == "non_prod"
    assert ground.ask(environment="live") == "prod"
    # Bound to production again, it is production's again.
    ground.estate.rebind(
        ground.projects["a"], secret_id, ground.head, environment_id=ground.live["a"]
    )
    ground.estate.rebind(
        ground.projects["a"], secret_id, ground.head, environment_id=ground.dev["a"]
    )
    assert ground.ask() == "production_secret"


def test_letting_go_and_binding_to_production_take_turns(ground: Ground, world: World) -> None:
    for n in range(8):
        secret_id = ground.bind(ref=f"app/{n}")
        args = {"caller": ground.estate.admin, "secret_id": secret_id, "reason": "everybody's"}
        let_go = partial(world.run, secret_kinds.change, kind="non_prod", now=NOW, **args)
        pin = partial(
            ground.estate.rebind,
            ground.projects["a"],
            secret_id,
            ground.head,
            environment_id=ground.live["a"],
        )
        assert kinds(at_once([let_go, pin]))["ok"] >= 1
        rows = world.rows("SELECT became_prod_at FROM secrets WHERE id = :id", id=secret_id)
        assert rows[0]["became_prod_at"] is not None


def test_a_new_production_environment_is_told_for_each_secret_it_takes(ground: Ground) -> None:
    held, pinned = ground.bind("b"), ground.bind("b", ground.dev["b"], "app/pinned")
    assert ground.told() == []
    ground.estate.environment(ground.projects["b"], "live", ground.head, kind="prod")
    events = ground.world.events(action=secret_kinds.CHANGE)
    assert [event.resource for event in events] == [f"secret:{held}"]
    assert pinned != held
    assert ground.told() == [{"after": {"kind": "prod"}, "project_id": ground.projects["b"]}]


def test_a_simulation_sees_the_kind_by_which_the_rules_chose(ground: Ground, world: World) -> None:
    ground.bind()
    assert ground.ask(None) == "prod"
    row = world.run(lambda tx: tx.many("request_list_latest", limit=1))[0]
    assert (row["environment_name"], row["environment_kind"]) == (None, "prod")


def test_many_entries_of_one_name_are_one(ground: Ground, world: World) -> None:
    for n in range(300):
        there = {"cluster_name": f"c{n}", "provider_type": "file", "secret_ref": "db"}
        stamps = {"first_seen_at": NOW, "last_seen_at": NOW, "became_prod_at": NOW}
        rest = {"labels": {}, "status": "present", "provider_connection_id": ground.line}
        world.insert("secrets", id=new_id(), **there, **rest, **stamps)
    facts = {"provider_type": "file", "connection_id": ground.line, "cluster_name": ""}
    found = world.run(lambda tx: tx.many("secret_list_prod", refs=["a/db", "db"], **facts, limit=9))
    assert [row["secret_ref"] for row in found] == ["db"]
    # A path that only ends like another one is another secret where no prefix is.
    ground.bind(env=ground.dev["a"])
    assert ground.ask() == "non_prod"
    world.write("UPDATE secrets SET provider_connection_id = NULL WHERE secret_ref = 'db'")
    assert ground.ask() == "non_prod"


def test_who_changes_no_environment_takes_back_no_decision(ground: Ground, world: World) -> None:
    secret_id = ground.bind()
    args = {"caller": ground.estate.admin, "secret_id": secret_id, "reason": "everybody's"}
    world.run(secret_kinds.change, kind="non_prod", now=NOW, **args)
    ground.estate.rebind(ground.projects["a"], secret_id, ground.head, allowed_keys=["A"])
    assert ground.ask() == "non_prod"


def test_who_binds_for_one_project_makes_nothing_of_anothers_production(
    ground: Ground, world: World
) -> None:
    other = ground.estate.team("other")
    theirs = ground.estate.project("theirs", other)
    secret_id = ground.bind("a", ground.dev["a"])
    ground.estate.bind(theirs, secret_id)
    # Narrowing takes nobody's leave; stopping others by it does.
    stranger = ground.estate.head(other)
    live = ground.estate.environment(theirs, "live", stranger, kind="prod")
    args = {"caller": ground.estate.admin, "secret_id": secret_id, "reason": "everybody's"}
    world.run(secret_kinds.change, kind="non_prod", now=NOW, **args)
    with pytest.raises(SecretOutOfScopeError):
        ground.estate.rebind(theirs, secret_id, stranger, environment_id=live)
    assert ground.ask() == "non_prod"


def test_a_waiting_request_goes_no_further_when_its_secret_becomes_productions(
    ground: Ground, world: World
) -> None:
    secret_id = ground.bind(env=ground.dev["a"])
    agent, facts = world.agent(ground.line), {"target_secret_ref": "app/db"}
    facts |= {"project_id": ground.projects["a"], "environment": "dev"}
    claimed = world.read(ground.asks, "A", **facts)
    held = world.claim(agent)
    assert held is not None
    waiting = world.read(ground.asks, "A", **facts)
    ground.estate.rebind(ground.projects["a"], secret_id, ground.head, environment_id=None)
    # What was handed out brings nothing any more; what waits is not handed out.
    with pytest.raises(ProductionSecretError):
        world.post(agent, held, "A")
    assert world.claim(agent) is None
    assert world.request(waiting)["status"] == "failed"
    assert world.request(claimed)["status"] == "approved"
    (row,) = world.events(action="job.revoked")
    assert row.metadata["error_kind"] == "production_secret"
