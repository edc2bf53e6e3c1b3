"""Where a request may point: what its binding allows, on the cluster it was bound for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sb.errors import InvalidInputError, SbError
from sb.ops.errors import (
    AutoApprovalForbiddenError,
    ConnectionDisabledError,
    ConnectionNotFoundError,
    CredentialInConfigError,
    EnvironmentNotInProjectError,
    NoWorkflowError,
    OutOfScopeKeyError,
    OutOfScopeOpError,
    OutOfScopeProjectError,
    ProviderConnectionRequiredError,
    ProviderTypeMismatchError,
    UnknownConfigKeyError,
)
from tests.ops.tenancy import Tenancy
from tests.ops.world import PLANTED, World

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"


@pytest.fixture
def tenancy(world: World) -> Tenancy:
    return Tenancy.build(world)


def refused(
    error: type[SbError], submit: Callable[..., str], *args: Any, **changes: Any
) -> SbError:
    with pytest.raises(error) as caught:
        submit(*args, **changes)
    assert type(caught.value) is error
    return caught.value


def test_a_bound_secret_is_routed_to_its_own_cluster(world: World, tenancy: Tenancy) -> None:
    request_id = tenancy.read(tenancy.developer, "B", "A")
    row = world.request(request_id)
    assert row["provider_connection_id"] == tenancy.east
    assert (row["cluster_name"], row["secret_id"]) == ("east", tenancy.ids["secret"])
    assert row["environment_id"] == tenancy.ids["environment_id:own"]
    assert row["target_keys"] == ["A", "B"]
    assert row["target_scope"] == tenancy.target


def test_a_bound_secret_is_not_reached_on_another_cluster(world: World, tenancy: Tenancy) -> None:
    with pytest.raises(SbError):
        tenancy.read(tenancy.developer, provider_connection_id=tenancy.west)


def test_a_secret_without_a_connection_stays_on_its_cluster(world: World, tenancy: Tenancy) -> None:
    tenancy.bind("app/west", None, "west", ops=["read"])
    world.write("UPDATE provider_connections SET status = 'disabled' WHERE id = :w", w=tenancy.west)
    request_id = tenancy.read(tenancy.developer, target_secret_ref="app/west")
    row = world.request(request_id)
    assert (row["provider_connection_id"], row["cluster_name"]) == (None, "west")


def test_an_unbound_secret_is_refused(world: World, tenancy: Tenancy) -> None:
    for changes in (
        {"target_secret_ref": "app/other"},
        {"target_secret_ref": "app/db "},
        {"project_id": tenancy.ids["project_id:other"]},
        {"project_id": MISSING},
    ):
        refused(OutOfScopeProjectError, tenancy.read, tenancy.developer, **changes)
    assert world.events(action="request.submit") == []


def test_an_archived_project_is_refused(world: World, tenancy: Tenancy) -> None:
    world.write("UPDATE projects SET status = 'archived'")
    refused(OutOfScopeProjectError, tenancy.read, tenancy.developer)


def test_a_binding_limits_operations_and_keys(world: World, tenancy: Tenancy) -> None:
    tenancy.bind("app/limited", tenancy.east, "east", ops=["read"], keys=["USER"])
    limited = {"target_secret_ref": "app/limited"}
    assert tenancy.read(tenancy.developer, "USER", **limited)
    refused(OutOfScopeOpError, tenancy.patch, tenancy.developer, "USER", **limited)
    refused(OutOfScopeKeyError, tenancy.read, tenancy.developer, "USER", "ROOT", **limited)
    # No keys means every key, which is more than the one allowed.
    refused(OutOfScopeKeyError, tenancy.read, tenancy.developer, **limited)
    assert world.rows("SELECT id FROM secret_wraps") == []


@pytest.mark.parametrize("submit", ["op", "key", "ref"])
def test_a_refusal_of_a_binding_is_audited(world: World, tenancy: Tenancy, submit: str) -> None:
    tenancy.bind("app/limited", tenancy.east, "east", ops=["read"], keys=["USER"])
    limited = {"target_secret_ref": "app/limited"}
    error = {
        "op": lambda: refused(
            OutOfScopeOpError, tenancy.patch, tenancy.developer, "USER", **limited
        ),
        "key": lambda: refused(
            OutOfScopeKeyError, tenancy.read, tenancy.developer, "ROOT", **limited
        ),
        "ref": lambda: refused(
            OutOfScopeProjectError, tenancy.read, tenancy.developer, target_secret_ref="x/y"
        ),
    }[submit]()
    assert error.audit is not None
    assert (error.audit.action, error.audit.status) == ("request.submit", "denied")


def test_a_binding_to_one_environment_serves_no_other(world: World, tenancy: Tenancy) -> None:
    own = tenancy.ids["environment_id:own"]
    tenancy.bind("app/dev", tenancy.east, "east", ops=["read"], environment_id=own)
    assert tenancy.read(tenancy.developer, target_secret_ref="app/dev")
    refused(
        OutOfScopeProjectError,
        tenancy.read,
        tenancy.developer,
        target_secret_ref="app/dev",
        environment=None,
    )
    refused(EnvironmentNotInProjectError, tenancy.read, tenancy.developer, environment="prod")
    refused(
        EnvironmentNotInProjectError,
        world.read,
        tenancy.developer,
        environment="dev",
        provider_connection_id=tenancy.east,
    )


def test_a_connection_must_exist_be_active_and_fit(world: World, tenancy: Tenancy) -> None:
    vault = world.connection("vault")
    ask = {"caller": tenancy.developer}
    for error, connection in (
        (ConnectionNotFoundError, MISSING),
        (ProviderTypeMismatchError, vault),
    ):
        refused(error, world.read, ask["caller"], provider_connection_id=connection)
    refused(ProviderConnectionRequiredError, world.read, ask["caller"])
    world.write("UPDATE provider_connections SET status = 'disabled' WHERE id = :w", w=tenancy.west)
    refused(ConnectionDisabledError, world.read, ask["caller"], provider_connection_id=tenancy.west)
    # With one left, it is the one.
    assert world.request(world.read(ask["caller"]))["provider_connection_id"] == tenancy.east


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"token": PLANTED}, CredentialInConfigError),
        ({"Access_Key": PLANTED}, CredentialInConfigError),
        ({"kvMount": ""}, UnknownConfigKeyError),
        ({"kvMount": 7}, UnknownConfigKeyError),
        ({"region": "eu"}, UnknownConfigKeyError),
    ],
)
def test_a_provider_config_holds_routing_keys_only(
    world: World, config: dict[str, Any], error: type[SbError]
) -> None:
    world.connection("vault")
    caller = world.person("dev", "developer")
    found = refused(
        error, world.read, caller, target_provider_type="vault", target_provider_config=config
    )
    assert PLANTED not in repr(found.details) + found.public_message
    good = {"kvPrefix": "p", "kvMount": "m"}
    request_id = world.read(caller, target_provider_type="vault", target_provider_config=good)
    assert world.request(request_id)["target_provider_config"] == good


def test_a_justification_is_asked_for_unless_the_workflow_waives_it(world: World) -> None:
    world.connection()
    caller = world.person("dev", "developer")
    refused(InvalidInputError, world.read, caller, justification=" ")
    world.rule({}, require_justification=False)
    assert world.request(world.read(caller, justification=" "))["justification"]


def test_the_first_fitting_rule_decides(world: World) -> None:
    world.connection()
    caller = world.person("dev", "developer")
    for priority, selector in (
        (40, {"operation": "patch"}),
        (30, {"secret_ref_prefix": "web/"}),
        (20, {"galaxy": "milky"}),
        (10, {"operation": "read", "provider_type": "file", "secret_ref_prefix": "app/"}),
        (5, {}),
    ):
        world.rule(selector, priority, name=f"at {priority}")
    expected = {"app/db": "at 10", "web/db": "at 30", "db": "at 5"}
    for ref, name in expected.items():
        row = world.request(world.read(caller, target_secret_ref=ref))
        found = world.rows(
            "SELECT name FROM workflow_definitions WHERE id = :id", id=row["workflow_id"]
        )
        assert found == [{"name": name}]
        assert row["matched_policy_rule_id"] is not None
    world.write("UPDATE workflow_definitions SET enabled = :no", no=False)
    refused(NoWorkflowError, world.read, caller)


def test_approval_by_nobody_is_refused_in_production(world: World, tenancy: Tenancy) -> None:
    world.rule({}, auto_approve=True, min_approvers=0)
    assert world.status(tenancy.read(tenancy.developer)) == "approved"
    world.write("UPDATE environments SET kind = 'prod'")
    refused(AutoApprovalForbiddenError, tenancy.read, tenancy.developer)
    assert len(world.rows("SELECT id FROM access_requests")) == 1


def test_a_workflow_without_approvers_must_say_so(world: World) -> None:
    for values in (
        {"min_approvers": 0},
        {"min_approvers": -1},
        {"min_approvers": 1, "auto_approve": True},
    ):
        with pytest.raises(SbError) as caught:
            world.workflow(**values)
        assert getattr(caught.value, "constraint", None) == "workflow_definitions_quorum_explicit"
