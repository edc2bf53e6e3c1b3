"""`sb recover`: an account gets in again when nobody is left who could reset its password.

It needs the database and nothing else: whoever can write there could do as much, without a trail.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sb.db.engine import Database


def configure(_name: str, parser: argparse.ArgumentParser) -> None:
    """Give the command its options and what it runs."""
    parser.add_argument("email", help="the address of the account")
    parser.set_defaults(run=_recover)


def _recover(options: argparse.Namespace) -> int:
    from sb.db.engine import Database
    from sb.db.errors import DatabaseLockedError
    from sb.errors import SbError
    from sb.settings import MigrateSettings, SettingsError, load

    try:
        settings = load(MigrateSettings)
        db = Database.open(settings.database_url.get_secret_value(), exclusive=True)
    except (SettingsError, DatabaseLockedError) as problem:
        return _refuse(problem)
    try:
        if db.schema_version_sync() != db.expected_version:
            return _refuse("the schema is not of this release: run `sb migrate` first")
        password = _let_in(db, options.email)
    except SbError as problem:
        return _refuse(problem)
    finally:
        db.close()
    sys.stderr.write(f"{options.email} can sign in with this password, and has to change it:\n")
    sys.stdout.write(f"{password}\n")
    return 0


def _let_in(db: Database, email: str) -> str:
    """Leave the account with a new temporary password and return it; the database keeps a hash."""
    from sb.auth.passwords import hash_password, temporary_password
    from sb.clock import utc_now
    from sb.ops import accounts

    password = temporary_password()
    new_hash = hash_password(password)
    db.run_sync(accounts.recover, email=email, new_hash=new_hash, now=utc_now())
    # To the terminal of whoever asked for it, once.
    return password.reveal().decode()


def _refuse(problem: object) -> int:
    sys.stderr.write(f"{problem}\n")
    return 1
