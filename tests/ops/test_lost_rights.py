"""Rights are taken back at any time: a request and a vote stand while their people could act."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from sb.db.engine import Transaction
from sb.errors import PermissionDeniedError
from sb.ops import accounts, approvals, grants, requests, wraps
from sb.ops.callers import Caller
from sb.ops.errors import AlreadyVotedError, RequesterLostRightError
from tests.ops.granting import grant_of, revoke
from tests.ops.job_steps import claimed
from tests.ops.refusals import behind, refused
from tests.ops.tenancy import Tenancy
from tests.ops.world import NOW, World, at

LOST = RequesterLostRightError


class Rights:
    """A tenancy with an administrator who takes rights away, and every way to do so."""

    def __init__(self, world: World) -> None:
        self.world, self.tenancy = world, Tenancy.build(world)
        self.admin = world.person("admin", "admin")
        self.agent = world.agent(self.tenancy.east)
        self.developer = self.tenancy.developer

    def submit(self, kind: str = "read") -> str:
        ask = self.tenancy.read if kind == "read" else self.tenancy.patch
        return ask(self.developer, "USER")

    def approved(self, kind: str = "read") -> str:
        request_id = self.submit(kind)
        assert self.tenancy.approve(self.tenancy.approver, request_id) == "approved"
        return request_id

    def disable(self, person: Caller) -> None:
        self.world.run(accounts.disable, by=self.admin, user_id=person.user_id, now=NOW)

    def enable(self, person: Caller) -> None:
        self.world.run(accounts.enable, by=self.admin, user_id=person.user_id, now=NOW)

    def revoke(self, person: Caller) -> None:
        revoke(self.world, self.admin, grant_of(self.world, person))

    def end(self, person: Caller) -> None:
        # Its time is over just now.
        end = "UPDATE user_roles SET expires_at = :now WHERE user_id = :id"
        self.world.write(end, now=NOW, id=person.user_id)

    def narrow(self, person: Caller, role: str = "developer") -> None:
        self.revoke(person)
        self.world.grant(person.user_id, role, self.tenancy.scope("project_id", "other"))

    def other(self, person: Caller) -> None:
        self.revoke(person)
        self.world.grant(person.user_id, "policy_author", {})


Lose = Callable[[Rights, Caller], None]
every_way = pytest.mark.parametrize(
    "lose",
    [Rights.disable, Rights.revoke, Rights.end, Rights.narrow, Rights.other],
    ids=["disabled", "revoked", "ended", "narrowed", "other role"],
)
both_kinds = pytest.mark.parametrize("kind", ["read", "patch"])


@pytest.fixture
def rights(world: World) -> Rights:
    return Rights(world)


@every_way
@both_kinds
def test_approval_is_refused_for_who_could_not_ask_and_rejection_is_not(
    world: World, rights: Rights, lose: Lose, kind: str
) -> None:
    request_id = rights.submit(kind)
    lose(rights, rights.developer)
    approver = rights.tenancy.approver
    asks = ("request.approve", f"request:{request_id}", "requester_lost_right")
    refused(world, LOST, world.approve, approver, request_id, asks=asks, about=request_id)
    args = {"caller": approver, "request_id": request_id, "now": NOW}
    world.run(approvals.reject, reason="gone", **args)
    assert world.status(request_id) == "rejected"


def test_cancelling_stays_possible_for_who_could_not_ask(world: World, rights: Rights) -> None:
    request_id = rights.submit()
    rights.revoke(rights.developer)
    bare = world.caller(rights.developer.user_id)
    world.run(requests.cancel, caller=bare, request_id=request_id, now=NOW)
    assert world.status(request_id) == "cancelled"


def test_approval_goes_on_for_who_got_the_right_back(world: World, rights: Rights) -> None:
    request_id, approver = rights.submit(), rights.tenancy.approver
    rights.disable(rights.developer)
    with pytest.raises(LOST):
        world.approve(approver, request_id)
    rights.enable(rights.developer)
    rights.narrow(rights.developer)
    with pytest.raises(LOST):
        world.approve(approver, request_id)
    scope = rights.tenancy.scope("project_id", "own")
    world.grant(rights.developer.user_id, "developer", scope)
    assert rights.tenancy.approve(approver, request_id) == "approved"


def test_a_request_without_a_project_takes_an_unscoped_right(world: World, rights: Rights) -> None:
    request_id = world.read(rights.developer, provider_connection_id=rights.tenancy.east)
    rights.revoke(rights.developer)
    scope = rights.tenancy.scope("project_id", "own")
    world.grant(rights.developer.user_id, "developer", scope)
    with pytest.raises(LOST):
        world.approve(rights.tenancy.approver, request_id)
    world.grant(rights.developer.user_id, "developer", {})
    assert rights.tenancy.approve(rights.tenancy.approver, request_id) == "approved"


@every_way
@both_kinds
def test_a_job_of_who_could_not_ask_is_not_handed_out_and_fails(
    world: World, rights: Rights, lose: Lose, kind: str
) -> None:
    request_id = rights.approved(kind)
    lose(rights, rights.developer)
    assert claimed(world, rights.agent) is None
    row, job = world.request(request_id), world.job(request_id)
    assert (row["status"], row["failure_reason"]) == ("failed", "binding_revoked")
    assert (job["status"], job["error"], job["attempts"]) == ("failed", "binding_revoked", 0)
    (event,) = world.events(action="job.revoked")
    assert (event.actor, event.correlation_id) == ("system:jobs", request_id)
    assert event.metadata["error_kind"] == "requester_lost_right"
    assert world.events(action="job.claim") == []
    assert all(wrap["expires_at"] <= NOW for wrap in world.wraps_of(request_id))


def test_a_job_of_who_could_not_ask_does_not_keep_the_next_waiting(
    world: World, rights: Rights
) -> None:
    lost = rights.approved()
    mine = rights.tenancy.read(rights.tenancy.colleague, "USER", now=at(seconds=1))
    rights.tenancy.approve(rights.tenancy.approver, mine, at(seconds=1))
    rights.disable(rights.developer)
    assert claimed(world, rights.agent, at(seconds=2)) == mine
    assert world.status(lost) == "failed"


@every_way
def test_an_agent_posts_nothing_for_who_could_not_ask(
    world: World, rights: Rights, lose: Lose
) -> None:
    request_id = rights.approved()
    held = world.held(rights.agent)
    lose(rights, rights.developer)
    asks = ("wrap.create", f"request:{request_id}", "requester_lost_right")
    refused(world, LOST, world.post, rights.agent, held, "USER", asks=asks, about=request_id)
    # It may still say how its work ended.
    world.finish(rights.agent, held, succeeded=False)
    assert world.status(request_id) == "failed"


@every_way
def test_an_agent_fetches_nothing_for_who_could_not_ask(
    world: World, rights: Rights, lose: Lose
) -> None:
    request_id = rights.approved("patch")
    held = world.held(rights.agent)
    (wrap,) = world.wraps_of(request_id)
    lose(rights, rights.developer)
    asks = ("wrap.retrieve", f"request:{request_id}", "requester_lost_right")
    args = {"agent": rights.agent, "lease_token_hash": held.lease, "wrap_id": wrap["id"]}
    refused(
        world, LOST, world.run, wraps.find_for_agent, **args, now=NOW, asks=asks, about=request_id
    )


def test_a_reveal_keeps_its_own_code(world: World, rights: Rights) -> None:
    request_id = rights.approved()
    held = world.held(rights.agent)
    wrap_id = world.post(rights.agent, held, "USER")
    world.finish(rights.agent, held)
    rights.narrow(rights.developer)
    bare = world.caller(rights.developer.user_id)
    asks = ("wrap.retrieve", f"request:{request_id}", "permission_withdrawn")
    refused(world, PermissionDeniedError, world.find, bare, request_id, wrap_id, asks=asks)
    # They were let in before the account was switched off.
    rights.disable(rights.developer)
    asks = ("wrap.retrieve", f"request:{request_id}", "requester_lost_right")
    refused(world, LOST, world.find, rights.developer, request_id, wrap_id, asks=asks)


# Votes.


def shown(world: World, caller: Caller, request_id: str) -> tuple[Any, ...]:
    """Return status, count, and whether each vote counts, first vote first."""
    seen = world.run(requests.show, caller=caller, request_id=request_id, now=NOW)
    counts = [vote["counts"] for vote in seen.votes]
    return seen.row["status"], seen.row["approvals_count"], counts


def last_count(world: World, request_id: str) -> dict[str, Any]:
    event = world.events(action="request.approve", correlation_id=request_id)[-1]
    return dict(event.metadata)


def narrow_approver(rights: Rights, person: Caller) -> None:
    rights.narrow(person, "approver")


@pytest.mark.parametrize(
    "lose",
    [Rights.disable, Rights.revoke, Rights.end, narrow_approver, Rights.other],
    ids=["disabled", "revoked", "ended", "narrowed", "other role"],
)
def test_a_vote_of_who_could_not_cast_it_does_not_count(
    world: World, rights: Rights, lose: Lose
) -> None:
    world.rule({}, min_approvers=2)
    first, second, third = (world.person(f"a{n}", "approver") for n in range(3))
    request_id = rights.submit()
    world.approve(first, request_id)
    assert shown(world, second, request_id) == ("pending", 1, [True])
    lose(rights, first)
    assert shown(world, second, request_id) == ("pending", 0, [False])
    assert rights.tenancy.approve(second, request_id) == "pending"
    assert last_count(world, request_id) == {
        "approves": 1,
        "required": 2,
        "became_approved": False,
        "not_counted": 1,
    }
    assert world.rows("SELECT id FROM sync_jobs") == []
    assert shown(world, second, request_id) == ("pending", 1, [False, True])
    # The list says how many were cast.
    (seen,) = world.run(
        requests.list_requests,
        caller=second,
        filters=requests.Filters(),
        before=None,
        limit=10,
        now=NOW,
    )
    assert seen.row["approvals_count"] == 2
    assert rights.tenancy.approve(third, request_id) == "approved"
    assert last_count(world, request_id)["approves"] == 2
    # Decided, nobody is asked any more.
    assert shown(world, second, request_id) == ("approved", 3, [None, None, None])


def test_a_vote_counts_again_with_the_right_and_is_not_cast_twice(
    world: World, rights: Rights
) -> None:
    world.rule({}, min_approvers=3)
    first, second, third = (world.person(f"a{n}", "approver") for n in range(3))
    request_id = rights.submit()
    world.approve(first, request_id)
    rights.revoke(first)
    world.approve(second, request_id)
    world.grant(first.user_id, "approver", rights.tenancy.scope("project_id", "own"))
    assert shown(world, second, request_id) == ("pending", 2, [True, True])
    with pytest.raises(AlreadyVotedError):
        world.approve(world.caller(first.user_id), request_id)
    assert rights.tenancy.approve(third, request_id) == "approved"
    counted = {"approves": 3, "required": 3, "became_approved": True}
    assert last_count(world, request_id) == counted


def test_a_vote_counts_while_its_voter_has_the_workflows_role(world: World, rights: Rights) -> None:
    world.rule({}, min_approvers=2, approver_role_id=world.role("deputy", "secret.approve"))
    first, second = world.person("d1", "deputy"), world.person("d2", "deputy")
    request_id = rights.submit()
    world.approve(first, request_id)
    # Approving by another role is not what the workflow asks for.
    rights.revoke(first)
    world.grant(first.user_id, "approver", {})
    assert rights.tenancy.approve(second, request_id) == "pending"
    assert shown(world, second, request_id) == ("pending", 1, [False, True])


def test_a_vote_that_waited_sees_what_was_taken_back_meanwhile(
    world: World, rights: Rights
) -> None:
    world.rule({}, min_approvers=2)
    first, second = world.person("a1", "approver"), world.person("a2", "approver")
    request_id, given = rights.submit(), grant_of(world, first)
    world.approve(first, request_id)

    def take(tx: Transaction) -> None:
        # Whoever votes waits for the request from here on.
        tx.one("request_lock", id=request_id)
        grants.revoke(tx, caller=rights.admin, grant_id=given, now=NOW)

    late = behind(world, take, partial(world.approve, second, request_id))
    assert (late.row["status"], late.row["approvals_count"]) == ("pending", 1)
    assert last_count(world, request_id)["not_counted"] == 1


def test_a_vote_of_who_is_disabled_meanwhile_does_not_count(world: World, rights: Rights) -> None:
    first = world.person("a1", "approver")
    request_id = rights.submit()

    def take(tx: Transaction) -> None:
        # They were let in before, and wait for the request from here on.
        tx.one("request_lock", id=request_id)
        accounts.disable(tx, by=rights.admin, user_id=first.user_id, now=NOW)

    late = behind(world, take, partial(world.approve, first, request_id))
    assert (late.row["status"], late.row["approvals_count"]) == ("pending", 0)
    assert last_count(world, request_id) == {
        "approves": 0,
        "required": 1,
        "became_approved": False,
        "not_counted": 1,
    }
