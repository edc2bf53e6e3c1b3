"""Nobody can tell an id out of their scope from one that never existed.

For every place where a route takes an id, two calls: with something real that the caller may not
see, and with an id nobody has. They must agree in status, body, headers and audit trail, and in
what they cost: the same statements, in as many transactions, the same keys and the same hashes.
"""

from __future__ import annotations

import dataclasses
import logging
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import httpx
import pytest

from sb.auth.passwords import Parameters, PasswordHasher, hash_password
from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.http.declare import Agent, RouteDeclaration, Session
from sb.ids import new_id
from sb.ops import users
from sb.ops.sessions import SessionRules
from sb.secret import Secret
from tests.http.enumeration_calls import Shot, Slot, call, kind_of, slots_of
from tests.http.enumeration_estate import Estate, build
from tests.http.enumeration_work import Observer, Seen
from tests.http.hostile import CLIENT, ROUTES
from tests.stack import PASSWORD, Stack

ROLES = ("role.edit", "user_role.edit", "workflow.edit")
WORKFLOWS = ("workflow.edit", "policy.edit", "policy.author", "secret.approve")
#: What belongs to no team, and whoever holds one of the permissions anywhere may see all of it.
SEEN_BY: Mapping[str, tuple[str, ...]] = {
    "GET /users/<id:user_id> path user_id": ("user_role.edit",),
    "GET /users/<id:user_id>/roles path user_id": ("user_role.edit",),
    "GET /roles/<id:role_id> path role_id": ROLES,
    "GET /workflows/<id:workflow_id> path workflow_id": WORKFLOWS,
    "POST /user-roles body user_id": ("user_role.edit",),
    "POST /user-roles body role_id": ("user_role.edit",),
    # Whoever may make anybody a member has to be told who that was.
    "POST /teams/<id:team_id>/members body user_id": ("team.edit",),
    # A connection has no team: whoever may bind may bind what is behind any of them.
    "POST /projects/<id:project_id>/secrets body provider_connection_id": ("secret.bind",),
}
#: Codes that say the call was not understood, which would compare nothing.
NOT_UNDERSTOOD = ("invalid_input", "invalid_json", "invalid_id", "unsupported_media_type")

#: Heavy enough that hashing is most of a sign-in, as it is in production.
COST = Parameters(memory_kib=8192, time_cost=2, parallelism=1)
ACCOUNTS = ("right", "disabled", "locked")
#: One route of each way in which a row is looked for.
TIMED = (
    "GET /projects/<id:project_id>",
    "POST /requests/<id:request_id>/approve",
    "PUT /teams/<id:team_id>",
    "PUT /projects/<id:project_id>/policy-rules/<id:rule_id>",
    "DELETE /user-roles/<id:grant_id>",
)

PEOPLES = [route for route in ROUTES if isinstance(route.access, Session) and slots_of(route)]
AGENTS = [route for route in ROUTES if isinstance(route.access, Agent)]


@pytest.fixture(autouse=True)
def quiet_client(caplog: pytest.LogCaptureFixture) -> None:
    """Keep no record of every byte the test's own client sends: it calls thousands of times."""
    for name in CLIENT:
        caplog.set_level(logging.WARNING, logger=name)


def aims(route: RouteDeclaration, estate: Estate) -> Iterator[dict[Slot, list[str]]]:
    """Yield the slots to fill at once, each with the real ids for it: one slot, then all of a path.

    The lists of one yield are equally long.
    """
    slots = slots_of(route)
    for slot in slots:
        yield {slot: estate.foreign[kind_of(route, slot, estate.foreign)]}
    path = [slot for slot in slots if slot.where == "path"]
    if len(path) > 1:
        yield {slot: estate.foreign[kind_of(route, slot, estate.foreign)][:1] for slot in path}


async def differences(
    observer: Observer,
    http: httpx.AsyncClient,
    route: RouteDeclaration,
    aim: Mapping[Slot, list[str]],
    estate: Estate,
    *,
    lease: str | None = None,
) -> list[str]:
    """Return in what the answers for real ids differ from that for ids nobody has."""

    async def seen(given: Mapping[Slot, str]) -> Seen:
        sent = {value: slot.name for slot, value in given.items()}
        return await observer.see(http, call(route, estate.own, given, lease=lease), sent)

    never = await seen({slot: new_id() for slot in aim})
    code = never.body.get("error") if isinstance(never.body, dict) else None
    assert code not in NOT_UNDERSTOOD, (route.name, [*map(str, aim)], never)
    found: list[str] = []
    for number in range(len(next(iter(aim.values())))):
        real = await seen({slot: ids[number] for slot, ids in aim.items()})
        found += [
            f"{part.name}: {was!r} for nothing, {now!r} for something"
            for part in dataclasses.fields(Seen)
            if (was := getattr(never, part.name)) != (now := getattr(real, part.name))
        ]
    return found


def named(route: RouteDeclaration, aim: Mapping[Slot, Any]) -> str:
    return f"{route.name} {' + '.join(map(str, aim))}"


async def test_people_cannot_tell_what_is_not_theirs_from_what_is_not(plane: Stack) -> None:
    estate = await build(plane)
    observer = Observer(plane)
    told: list[str] = []
    people = dict(estate.people)
    if plane.db.dialect == "postgres":
        # The whole table runs on the other database; here whoever gets furthest into it.
        people = {"head": people["head"]}
    for route in PEOPLES:
        assert isinstance(route.access, Session)
        for name, person in people.items():
            held = estate.permissions[name]
            if route.access.permission is not None and route.access.permission not in held:
                continue  # Stopped at the door, whatever the ids.
            for aim in aims(route, estate):
                if held & set(SEEN_BY.get(named(route, aim), ())):
                    continue
                found = await differences(observer, person.http, route, aim, estate)
                told += [f"{name}: {named(route, aim)}: {line}" for line in found]
    assert not told, "\n".join(told)


async def test_agents_cannot_tell_what_is_not_theirs_from_what_is_not(plane: Stack) -> None:
    estate = await build(plane)
    observer = Observer(plane)
    (agent,) = estate.own.agents
    told: list[str] = []
    # Under the lease of a patch, of a read, and under none that anybody holds.
    for lease in (*estate.own.leases.values(), None):
        for route in AGENTS:
            for aim in aims(route, estate):
                found = await differences(observer, agent.http, route, aim, estate, lease=lease)
                told += [f"{named(route, aim)}: {line}" for line in found]
    assert not told, "\n".join(told)


async def test_what_whoever_holds_a_permission_may_see_is_real(plane: Stack) -> None:
    """The ids are of real things, and the exemptions are needed: there the answers do differ."""
    estate = await build(plane)
    observer = Observer(plane)
    head = estate.people["head"]
    exempt = set(SEEN_BY)
    for route in PEOPLES:
        for aim in aims(route, estate):
            if named(route, aim) in exempt:
                assert await differences(observer, head.http, route, aim, estate), named(route, aim)
                exempt.remove(named(route, aim))
            # An administrator finds every one of them that a path alone names.
            slots = slots_of(route)
            if route.method != "GET" or any(slot.where != "path" for slot in slots):
                continue
            if len(slots) == 1 and "me" not in route.path.split("/"):
                await _finds(estate, route, slots[0])
    assert not exempt, exempt


async def _finds(estate: Estate, route: RouteDeclaration, slot: Slot) -> None:
    for real in estate.foreign[kind_of(route, slot, estate.foreign)]:
        shot = call(route, estate.own, {slot: real})
        answer = await estate.admin.http.request(shot.method, shot.path)
        # Whose request it is decides here, not who administers.
        own_only = (answer.status_code, route.path.endswith("/wraps")) == (403, True)
        assert answer.status_code == 200 or own_only, (route.name, answer.text)


async def test_an_address_cannot_be_told_by_signing_in(plane: Stack) -> None:
    await _accounts(plane)
    observer = Observer(plane)
    seen = {name: await _refused(observer, name) for name in ("unknown", *ACCOUNTS)}
    first = seen["unknown"]
    assert (first.status, first.body["error"]) == (401, "invalid_credentials")
    for name, other in seen.items():
        for part in ("status", "headers", "body", "transactions", "keys", "hashes"):
            assert getattr(other, part) == getattr(first, part), (name, part)
        assert len(other.hashes) == 1, name
    # Only the audit log knows which it was.
    kinds = {name: found.audit[0][4]["error_kind"] for name, found in seen.items()}
    assert kinds == {
        "unknown": "user_not_found",
        "right": "wrong_password",
        "disabled": "user_disabled",
        "locked": "account_locked",
    }


async def test_ids_and_addresses_take_as_long_whether_they_are_real_or_not(plane: Stack) -> None:
    estate = await build(plane)
    head, own = estate.people["head"].http, estate.own
    for name in TIMED:
        route = next(found for found in ROUTES if found.name == name)
        slot = [found for found in slots_of(route) if found.where == "path"][-1]
        real = estate.foreign[kind_of(route, slot, estate.foreign)][0]
        calls = [call(route, own, {slot: found}) for found in (new_id(), real)]
        await _as_long(head, calls, name=name)
    await _accounts(plane)
    object.__setattr__(plane.state, "hasher", PasswordHasher(COST))
    async with httpx.AsyncClient(base_url=plane.url, timeout=30) as nobody:
        await nobody.post("/api/v1/auth/login", json={"email": "x@y.z", "password": "wrong"})
        for name in ACCOUNTS:
            calls = [_sign_in("unknown"), _sign_in(name)]
            await _as_long(nobody, calls, name=name)


async def _as_long(http: httpx.AsyncClient, calls: Sequence[Shot], *, name: str) -> None:
    """Fail when two calls, made in turn, are not of one class: their medians within a factor.

    What the machine does beside them may tear one measurement apart, a difference tears all.
    """
    ratios: list[float] = []
    while not ratios or not 1 / 2 <= ratios[-1] <= 2:
        assert len(ratios) < 5, (name, ratios)
        taken: list[list[float]] = [[], []]
        for _ in range(15):
            for times, shot in zip(taken, calls, strict=True):
                began = time.perf_counter()
                await http.request(shot.method, shot.path, json=shot.body)
                times.append(time.perf_counter() - began)
        ratios.append(statistics.median(taken[0]) / statistics.median(taken[1]))


async def _accounts(plane: Stack) -> None:
    """Make an account to mistype the password of, one switched off and a locked one."""
    object.__setattr__(plane.state, "session_rules", SessionRules(lock_threshold=1000))
    until = utc_now() + timedelta(hours=1)

    def make(tx: Transaction) -> None:
        stored = hash_password(Secret(PASSWORD.encode()), COST)
        for name in ACCOUNTS:
            facts = {"email": f"{name}@example.com", "display_name": name, "now": utc_now()}
            user_id = users.create(tx, **facts, password_hash=stored)
            if name == "locked":
                tx.count("user_lock", id=user_id, locked_until=until)
            if name == "disabled":
                tx.count("user_set_disabled", id=user_id, disabled=True, now=utc_now())

    await plane.db.run(make)


def _sign_in(name: str) -> Shot:
    # The right password of an account that is off or locked is refused like a wrong one.
    password = "a-wrong-password" if name in ("right", "unknown") else PASSWORD
    body = {"email": f"{name}@example.com", "password": password}
    return Shot(method="POST", path="/api/v1/auth/login", body=body, headers={})


async def _refused(observer: Observer, name: str) -> Seen:
    observer.hasher.parameters = COST
    async with httpx.AsyncClient(base_url=observer.plane.url, timeout=30) as nobody:
        return await observer.see(nobody, _sign_in(name), {})
