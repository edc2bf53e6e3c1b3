"""A person with as many grants as there may be cannot keep an administrator from taking them."""

from __future__ import annotations

from http import HTTPStatus

import trio

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.ids import new_id
from sb.ops import grants
from tests.http.granting import delete, give, make_role, make_team
from tests.http.hostile import unlimited
from tests.ops import rows
from tests.stack import Person, Stack

TEAMS = 1000
AT_ONCE = 4


async def test_revoke_succeeds_while_somebody_at_the_most_goes_on_granting(plane: Stack) -> None:
    unlimited(plane)
    admin, head = await plane.person("ada", "admin"), await plane.person("head")
    role, root = await make_role(admin, "head", "user_role.edit"), await make_team(plane, "root")
    given = (await give(admin, head, role, {"team_id": root})).json()["id"]
    await plane.db.run(fill, user_id=head.id, role_id=role, root=root)
    others = await own(head)
    again, seen = trio.Event(), list[tuple[int, str]]()

    async def attack() -> None:
        while True:
            answer = await give(head, head, role, {"team_id": root, "cluster": new_id()})
            seen.append((answer.status_code, answer.json().get("error")))
            again.set()

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(attack)
        for grant_id in (given, *others[:9]):
            await again.wait()
            again = trio.Event()
            answer = await delete(admin, f"/user-roles/{grant_id}")
            assert answer.status_code == HTTPStatus.NO_CONTENT, answer.text
        nursery.cancel_scope.cancel()
    assert (409, "too_many_grants") in seen


def fill(tx: Transaction, *, user_id: str, role_id: str, root: str) -> None:
    """Leave a thousand teams below the root, and the person with all the grants they may have."""
    now = utc_now()
    for number in range(TEAMS):
        values = {"name": f"t{number}", "parent_team_id": root, "status": "active"}
        stamps = {"created_at": now, "updated_at": now}
        rows.insert(tx, "teams", id=new_id(), description=None, **values, **stamps)
    for number in range(1, grants.MOST_IN_FORCE):
        grants.give(
            tx,
            user_id=user_id,
            role_id=role_id,
            scope={"team_id": root, "cluster": f"c{number}"},
            granted_by="system:test",
            now=now,
        )


async def own(person: Person) -> list[str]:
    """Return the ids of the person's grants, newest first."""
    found = (await person.get(f"/users/{person.id}/roles")).json()
    return [grant["id"] for grant in found]
