"""What a request rests on may be withdrawn at any time: approval, claim and values ask again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from sb.errors import DatabaseBusyError, SbError
from sb.ops import approvals, projects, requests, wraps
from sb.ops.errors import (
    ConnectionDisabledError,
    OutOfScopeKeyError,
    OutOfScopeOpError,
    OutOfScopeProjectError,
    ProviderConnectionRequiredError,
)
from sb.ops.tenancy_errors import (
    BindingRevokedError,
    EnvironmentDeletedError,
    ProjectArchivedError,
)
from tests.ops.estate import Estate
from tests.ops.job_steps import claimed
from tests.ops.refusals import at_once, refused
from tests.ops.tenancy import Tenancy
from tests.ops.world import NOW, World, at


class Ground:
    """A tenancy whose secret may be read and patched, and every way to take that back."""

    def __init__(self, world: World) -> None:
        self.world, self.estate = world, Estate.of(world)
        self.tenancy = Tenancy.build(world)
        self.project = self.tenancy.ids["project_id:own"]
        self.env = self.tenancy.ids["environment_id:own"]
        self.secret = self.tenancy.ids["secret"]
        self.agent = world.agent(self.tenancy.east)

    def submit(self, kind: str = "read") -> str:
        ask = self.tenancy.read if kind == "read" else self.tenancy.patch
        return ask(self.tenancy.developer, "USER")

    def approved(self, kind: str = "read") -> str:
        request_id = self.submit(kind)
        assert self.tenancy.approve(self.tenancy.approver, request_id) == "approved"
        return request_id

    def unbound(self) -> None:
        self.estate.unbind(self.project, self.secret)

    def narrowed(self, **changes: Any) -> None:
        self.estate.rebind(self.project, self.secret, **changes)

    def moved(self) -> None:
        self.narrowed(environment_id=self.estate.environment(self.project, "other"))

    def archived(self) -> None:
        args = {"caller": self.estate.admin, "project_id": self.project, "now": NOW}
        self.world.run(projects.set_status, status="archived", **args)

    def emptied(self) -> None:
        # Open requests keep their environment from being deleted; a race may still do it.
        self.world.write("UPDATE environments SET deleted_at = :t WHERE id = :e", t=NOW, e=self.env)

    def doubtful(self) -> None:
        # Bound before there were connections; the one it was led by is not the only one any more.
        self.unpinned()
        self.world.connection(cluster="east")

    def resting(self) -> None:
        # Which of two connections is disabled must not say where a binding leads.
        self.doubtful()
        self.world.write(
            "UPDATE provider_connections SET status = 'disabled' WHERE id > :id",
            id=self.tenancy.west,
        )

    def unpinned(self) -> None:
        self.world.write("UPDATE secrets SET provider_connection_id = NULL")

    def disabled(self) -> None:
        self.world.write(
            "UPDATE provider_connections SET status = 'disabled' WHERE id = :id",
            id=self.tenancy.east,
        )


Take = Callable[[Ground], None]
WITHDRAWN: list[tuple[Take, type[SbError]]] = [
    (Ground.unbound, BindingRevokedError),
    (lambda ground: ground.narrowed(allowed_keys=["PORT"]), OutOfScopeKeyError),
    (lambda ground: ground.narrowed(allowed_ops=["discover"]), OutOfScopeOpError),
    (Ground.moved, BindingRevokedError),
    (Ground.archived, ProjectArchivedError),
    (Ground.emptied, EnvironmentDeletedError),
    (Ground.doubtful, BindingRevokedError),
    (Ground.resting, BindingRevokedError),
    (Ground.disabled, ConnectionDisabledError),
]
NAMES = [
    "unbound",
    "keys",
    "ops",
    "environment",
    "archived",
    "deleted",
    "doubtful",
    "resting",
    "disabled",
]
every_way = pytest.mark.parametrize(("take", "error"), WITHDRAWN, ids=NAMES)


@pytest.fixture
def ground(world: World) -> Ground:
    return Ground(world)


@every_way
def test_approval_is_refused_and_rejection_is_not(
    world: World, ground: Ground, take: Take, error: type[SbError]
) -> None:
    request_id = ground.submit()
    before = world.run(
        requests.show, caller=ground.tenancy.approver, request_id=request_id, now=NOW
    )
    assert (before.blocked_by, before.allowed_actions) == (None, ["approve", "reject"])
    take(ground)
    refused(
        world,
        error,
        world.approve,
        ground.tenancy.approver,
        request_id,
        asks=("request.approve", f"request:{request_id}", error.code),
        about=request_id,
    )
    args = {"caller": ground.tenancy.approver, "request_id": request_id, "now": NOW}
    # Whoever looks is told before they try.
    seen = world.run(requests.show, **args)
    assert (seen.blocked_by, seen.allowed_actions) == (error.code, ["reject"])
    world.run(approvals.reject, reason="gone", **args)
    assert world.status(request_id) == "rejected"
    assert world.run(requests.show, **args).blocked_by is None


@every_way
@pytest.mark.parametrize("kind", ["read", "patch"])
def test_a_waiting_job_is_not_handed_out_and_its_request_fails(
    world: World, ground: Ground, take: Take, error: type[SbError], kind: str
) -> None:
    request_id = ground.approved(kind)
    take(ground)
    assert claimed(world, ground.agent) is None
    if error is ConnectionDisabledError:
        # A connection may come back: until then, or until its time runs out, the job waits.
        assert world.status(request_id) == "approved"
        world.write("UPDATE provider_connections SET status = 'active'")
        assert claimed(world, ground.agent) == request_id
        return
    row, job = world.request(request_id), world.job(request_id)
    assert (row["status"], row["failure_reason"]) == ("failed", "binding_revoked")
    assert (job["status"], job["error"], job["attempts"]) == ("failed", "binding_revoked", 0)
    assert (job["claimed_by"], job["lease_token_hash"]) == (None, None)
    (event,) = world.events(action="job.revoked")
    assert (event.actor, event.status, event.correlation_id) == (
        "system:jobs",
        "failure",
        request_id,
    )
    assert event.metadata["error_kind"] == error.code
    assert world.events(action="job.claim") == []
    # What was to be written is of no use any more.
    assert all(wrap["expires_at"] <= NOW for wrap in world.wraps_of(request_id))


@every_way
def test_an_agent_posts_nothing_after_it_claimed(
    world: World, ground: Ground, take: Take, error: type[SbError]
) -> None:
    request_id = ground.approved()
    held = world.held(ground.agent)
    take(ground)
    refused(
        world,
        error,
        world.post,
        ground.agent,
        held,
        "USER",
        asks=("wrap.create", f"request:{request_id}", error.code),
        about=request_id,
    )


@every_way
def test_an_agent_fetches_nothing_after_it_claimed(
    world: World, ground: Ground, take: Take, error: type[SbError]
) -> None:
    request_id = ground.approved("patch")
    held = world.held(ground.agent)
    (wrap,) = world.wraps_of(request_id)
    take(ground)
    refused(
        world,
        error,
        world.run,
        wraps.find_for_agent,
        agent=ground.agent,
        lease_token_hash=held.lease,
        wrap_id=wrap["id"],
        now=NOW,
        asks=("wrap.retrieve", f"request:{request_id}", error.code),
        about=request_id,
    )


@every_way
def test_the_requester_reveals_nothing_that_was_taken_back(
    world: World, ground: Ground, take: Take, error: type[SbError]
) -> None:
    request_id = ground.approved()
    held = world.held(ground.agent)
    wrap_id = world.post(ground.agent, held, "USER")
    world.finish(ground.agent, held)
    take(ground)
    if error is ConnectionDisabledError:
        # The value is here: that its provider rests does not take it back.
        assert world.reveal(ground.tenancy.developer, request_id, wrap_id)
        return
    asks = ("wrap.retrieve", f"request:{request_id}", error.code)
    who = ground.tenancy.developer
    refused(world, error, world.find, who, request_id, wrap_id, asks=asks, about=request_id)


def test_a_binding_without_a_connection_stands_while_one_leads_there(
    world: World, ground: Ground
) -> None:
    ground.unpinned()
    request_id = ground.approved()
    held = world.held(ground.agent)
    # Neither another cluster's nor another provider's leads there.
    world.connection("vault", cluster="east")
    world.connection(cluster="west")
    wrap_id = world.post(ground.agent, held, "USER")
    world.finish(ground.agent, held)
    assert world.reveal(ground.tenancy.developer, request_id, wrap_id)


def test_a_request_by_a_connection_its_binding_does_not_name_is_refused(
    world: World, ground: Ground
) -> None:
    request_id = ground.submit()
    world.write("UPDATE access_requests SET provider_connection_id = :c", c=ground.tenancy.west)
    with pytest.raises(BindingRevokedError):
        world.approve(ground.tenancy.approver, request_id)


def test_a_key_that_stayed_allowed_is_posted_after_others_went(
    world: World, ground: Ground
) -> None:
    request_id = ground.tenancy.read(ground.tenancy.developer)
    ground.tenancy.approve(ground.tenancy.approver, request_id)
    held = world.held(ground.agent)
    ground.narrowed(allowed_keys=["USER"])
    assert world.post(ground.agent, held, "USER")
    asks = ("wrap.create", f"request:{request_id}", "out_of_scope_key")
    refused(world, OutOfScopeKeyError, world.post, ground.agent, held, "ROOT", asks=asks)


def test_a_lost_ground_does_not_keep_the_next_job_waiting(world: World, ground: Ground) -> None:
    lost = [ground.approved() for _ in range(3)]
    ground.estate.unbind(ground.project, ground.secret)
    ground.tenancy.bind("app/next", ground.tenancy.east, "east", ops=["read"])
    request_id = ground.tenancy.read(
        ground.tenancy.developer, target_secret_ref="app/next", now=at(seconds=1)
    )
    ground.tenancy.approve(ground.tenancy.approver, request_id, at(seconds=1))
    assert claimed(world, ground.agent, at(seconds=2)) == request_id
    assert {world.status(found) for found in lost} == {"failed"}


def test_a_lapsed_job_is_not_handed_out_again(world: World, ground: Ground) -> None:
    request_id = ground.approved()
    world.held(ground.agent)
    ground.unbound()
    assert claimed(world, ground.agent, at(minutes=5)) is None
    assert world.status(request_id) == "failed"


def test_withdrawal_and_claim_at_once_agree(world: World, ground: Ground) -> None:
    for _ in range(5):
        ground.estate.rebind(ground.project, ground.secret, allowed_keys=None)
        request_id = ground.approved()
        found = at_once(
            [
                partial(world.claim, ground.agent),
                partial(ground.narrowed, allowed_keys=["PORT"]),
            ]
        )
        if found[0] is None:
            assert world.status(request_id) == "failed"
            continue
        # It was handed out before; then the values ask again.
        assert not isinstance(found[0], DatabaseBusyError)
        with pytest.raises(OutOfScopeKeyError):
            world.post(ground.agent, found[0], "USER")
        world.finish(ground.agent, found[0], succeeded=False)


def test_a_request_without_a_project_rests_on_its_connection(world: World) -> None:
    east = world.connection()
    agent = world.agent(east)
    developer, approver = world.person("d", "developer"), world.person("a", "approver")
    first = world.read(developer)
    world.approve(approver, first)
    second = world.read(developer)
    world.write("UPDATE provider_connections SET status = 'disabled'")
    with pytest.raises(ConnectionDisabledError):
        world.approve(approver, second)
    assert claimed(world, agent) is None
    assert world.status(first) == "approved"


@pytest.mark.parametrize("config", [{"kvPrefix": "app"}, {"kvMount": "other"}])
def test_routing_keys_of_a_submitter_do_not_lead_past_a_binding(
    world: World, ground: Ground, config: dict[str, str]
) -> None:
    vault = world.connection("vault")
    world.write("UPDATE secrets SET provider_type = 'vault', cluster_name = ''")
    world.write("UPDATE secrets SET provider_connection_id = :v", v=vault)
    ask = partial(
        ground.tenancy.read, ground.tenancy.developer, "USER", target_provider_type="vault"
    )
    with pytest.raises(OutOfScopeProjectError) as caught:
        ask(target_provider_config=config)
    assert caught.value.audit is not None
    world.write("UPDATE provider_connections SET scope = :s WHERE id = :v", s=config, v=vault)
    # What the connection itself says is what the job gets, asked for or not.
    for given in (config, {}):
        row = world.request(ask(target_provider_config=given))
        assert row["target_provider_config"] == config


def test_a_connection_of_the_submitters_choice_does_not_lead_past_a_binding(
    world: World, ground: Ground
) -> None:
    second = world.connection(cluster="east")
    with pytest.raises(OutOfScopeProjectError):
        ground.tenancy.read(ground.tenancy.developer, provider_connection_id=second)
    ground.tenancy.bind("app/db", second, "east", ops=["read"])
    with pytest.raises(ProviderConnectionRequiredError):
        ground.submit()
    request_id = ground.tenancy.read(ground.tenancy.developer, provider_connection_id=second)
    assert world.request(request_id)["provider_connection_id"] == second
