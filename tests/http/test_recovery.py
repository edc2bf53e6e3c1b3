"""`sb recover`: the only administrator gets in again with the database in hand."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from sb.db.engine import Database
from sb.ops import audit, users
from tests.cli.running import sb
from tests.http.hostile import nothing_changes, refused
from tests.stack import PASSWORD, Stack, add_user

LOGIN = "/api/v1/auth/login"


#: A SQLite file has one process: there it works only while nothing else runs.
beside_the_api = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)


async def recover(home: Path, *arguments: str, url: str | None) -> tuple[int, str, str]:
    environ = {} if url is None else {"DATABASE_URL": url}
    run = partial(sb, "recover", *arguments, home=home, environ=environ)
    done = await trio.to_thread.run_sync(run)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@beside_the_api
async def test_recover_lets_the_only_administrator_in_again(
    plane: Stack, database_url: str, tmp_path: Path
) -> None:
    admin = await plane.person("admin", "admin")
    login = {"email": admin.email, "password": PASSWORD}
    async with httpx.AsyncClient(base_url=plane.url, timeout=30) as http:
        for _ in range(5):
            await http.post(LOGIN, json={**login, "password": "not this one"})
        assert (await http.post(LOGIN, json=login)).status_code == 401
        code, out, err = await recover(tmp_path, admin.email.upper(), url=database_url)
        assert (code, "has to change it" in err) == (0, True), err
        # Every session is over, the old password opens nothing, the lock is gone.
        assert (await admin.get("/users/me")).status_code == 401
        assert (await http.post(LOGIN, json=login)).status_code == 401
        answer = await http.post(LOGIN, json={**login, "password": out.strip()})
        assert answer.status_code == 200, answer.text
        http.headers["authorization"] = f"Bearer {answer.json()['token']}"
        refused(await http.get("/api/v1/users"), 403, "password_change_required")
    filters = audit.Filters(action="user.recover")
    (row,) = await plane.db.read(audit.list_events, filters=filters, before=None, limit=9)
    assert (row.actor, row.resource) == ("system:recovery", f"user:{admin.id}")
    assert row.metadata == {"enabled": False, "sessions_ended": 1, "unlocked": True}
    assert out.strip() not in str(row)


@beside_the_api
async def test_recover_enables_an_account(plane: Stack, database_url: str, tmp_path: Path) -> None:
    admin, bob = await plane.person("admin", "admin"), await plane.person("bob")
    assert (await admin.post(f"/users/{bob.id}/disable")).status_code == 200
    assert (await recover(tmp_path, bob.email, url=database_url))[0] == 0
    found = await plane.db.read(users.find, user_id=bob.id)
    assert (found.disabled, found.must_change_password) == (False, True)
    # Nothing else of the account is any different.
    assert (found.email, (await admin.get(f"/users/{bob.id}/roles")).json()) == (bob.email, [])


@beside_the_api
async def test_recover_tells_what_is_wrong_and_changes_nothing(
    plane: Stack, database_url: str, tmp_path: Path
) -> None:
    admin = await plane.person("admin", "admin")
    async with nothing_changes(database_url):
        code, out, err = await recover(tmp_path, "nobody@example.com", url=database_url)
        assert (code, out) == (1, "")
        assert err == "There is no such user.\n"
        code, out, err = await recover(tmp_path, admin.email, url=None)
        assert (code, out) == (1, "")
        assert "DATABASE_URL" in err
        assert (await recover(tmp_path, url=database_url))[0] == 2
    assert (await admin.get("/users/me")).status_code == 200


async def test_recover_on_sqlite_waits_for_its_one_process(sqlite_url: str, tmp_path: Path) -> None:
    db = Database.open(sqlite_url, exclusive=True)
    db.run_sync(add_user, email="a@example.com", role=None, scope=None)
    code, out, err = await recover(tmp_path, "a@example.com", url=sqlite_url)
    assert (code, out) == (1, "")
    assert "is open in another process" in err
    db.close()
    code, out, err = await recover(tmp_path, "a@example.com", url=sqlite_url)
    assert (code, len(out.strip())) == (0, 24), err


@pytest.mark.parametrize("made", [False, True])
async def test_recover_asks_for_the_schema_first(tmp_path: Path, made: bool) -> None:
    path = tmp_path / "bridge.db"
    if made:
        path.touch()
    code, out, err = await recover(tmp_path, "a@example.com", url=f"sqlite:///{path}")
    assert (code, out) == (1, "")
    assert err == "the schema is not of this release: run `sb migrate` first\n"
