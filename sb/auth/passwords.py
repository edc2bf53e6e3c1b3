"""Passwords: argon2id at OWASP's parameters, hashed under a limiter of their own.

https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
"""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass
from functools import partial
from typing import Final

import argon2
import trio
from argon2.exceptions import InvalidHashError, VerificationError

from sb.errors import InvalidInputError, SbError
from sb.secret import Secret
from sb.threads import run_blocking

MEMORY_KIB: Final = 19_456
TIME_COST: Final = 2
PARALLELISM: Final = 1

MIN_CHARACTERS: Final = 12
MAX_BYTES: Final = 256
#: What a temporary password is made of: nothing that looks like something else when read aloud.
READABLE: Final = "abcdefghjkmnpqrstuvwxyz23456789"


class PasswordRefusedError(InvalidInputError):
    """A new password does not follow the rules; says which."""

    code = "password_refused"
    message = "The new password does not follow the rules."


class SignInBusyError(SbError):
    """More passwords wait to be checked than can be answered in time."""

    code = "sign_in_busy"
    status = 503
    message = "Too many sign-ins at once. Try again in a few seconds."


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What one hash costs. A stored hash keeps its own and is renewed at the next sign-in."""

    memory_kib: int = MEMORY_KIB
    time_cost: int = TIME_COST
    parallelism: int = PARALLELISM


OWASP: Final = Parameters()


def hash_password(password: Secret, parameters: Parameters = OWASP) -> str:
    """Return the encoded argon2id hash, with a salt of its own. Blocks for tens of milliseconds."""
    return _argon2(parameters).hash(_normalised(password))


def verify(stored: str, password: Secret, parameters: Parameters = OWASP) -> bool:
    """Tell whether the password made this hash; an unreadable hash matches nothing. Blocks."""
    try:
        return _argon2(parameters).verify(stored, _normalised(password))
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False


def needs_rehash(stored: str, parameters: Parameters = OWASP) -> bool:
    """Tell whether the hash was made at another cost than today's."""
    try:
        return _argon2(parameters).check_needs_rehash(stored)
    except InvalidHashError:
        return True


def dummy_hash(parameters: Parameters = OWASP) -> str:
    """Return a hash that no password matches, to compare with when there is no such user."""
    return hash_password(Secret(secrets.token_bytes(32)), parameters)


def check_new_password(password: Secret, *, email: str) -> None:
    """Refuse a password that is too short, too long or the person's own address."""
    # The password is only measured and compared here.
    text = _normalised(password).decode(errors="replace")
    if len(text) < MIN_CHARACTERS:
        raise PasswordRefusedError(f"A password has at least {MIN_CHARACTERS} characters.")
    if len(text.encode()) > MAX_BYTES:
        raise PasswordRefusedError(f"A password has at most {MAX_BYTES} bytes.")
    address = unicodedata.normalize("NFC", email)
    if text.strip().casefold() == address.strip().casefold():
        raise PasswordRefusedError("A password is not the address it signs in.")


def temporary_password() -> Secret:
    """Return a new random password of 99 bits that a person can type."""
    groups = ("".join(secrets.choice(READABLE) for _ in range(4)) for _ in range(5))
    return Secret("-".join(groups).encode())


class PasswordHasher:
    """Hashes and verifies in worker threads, a few at a time, so that nothing else waits.

    argon2 releases the GIL, so a hash costs the event loop nothing; the slots bound the cores and
    the memory that a flood of sign-ins can take, and `max_waiting` bounds its queue.
    """

    def __init__(
        self, parameters: Parameters = OWASP, *, slots: int = 2, max_waiting: int = 128
    ) -> None:
        self.parameters = parameters
        self._limiter = trio.CapacityLimiter(slots)
        self._max_waiting = max_waiting
        self._dummy: str | None = None

    async def hash(self, password: Secret) -> str:
        """Return the encoded hash. A cancelled caller still waits for a hash that has begun."""
        self._refuse_when_full()
        call = partial(hash_password, password, self.parameters)
        return await run_blocking(call, limiter=self._limiter)

    async def verify(self, stored: str, password: Secret) -> bool:
        """Tell whether the password made this hash. Cancellation is as for `hash`."""
        self._refuse_when_full()
        call = partial(verify, stored, password, self.parameters)
        return await run_blocking(call, limiter=self._limiter)

    def needs_rehash(self, stored: str) -> bool:
        """Tell whether the hash was made at another cost than today's. Costs nothing."""
        return needs_rehash(stored, self.parameters)

    async def dummy(self) -> str:
        """Return this process's hash that no password matches; made once, at the first call.

        Call it once at start: otherwise the first unknown user waits twice as long as a known one.
        """
        if self._dummy is None:
            call = partial(dummy_hash, self.parameters)
            self._dummy = await run_blocking(call, limiter=self._limiter)
        return self._dummy

    def _refuse_when_full(self) -> None:
        if self._limiter.statistics().tasks_waiting >= self._max_waiting:
            raise SignInBusyError(headers={"Retry-After": "2"})


def _argon2(parameters: Parameters) -> argon2.PasswordHasher:
    return argon2.PasswordHasher(
        time_cost=parameters.time_cost,
        memory_cost=parameters.memory_kib,
        parallelism=parameters.parallelism,
    )


def _normalised(password: Secret) -> bytes:
    """Return the bytes to hash: NFC, since keyboards differ in how they compose a letter."""
    # The password goes into the hash function or a rule of this module.
    raw = password.reveal()
    try:
        return unicodedata.normalize("NFC", raw.decode()).encode()
    except UnicodeDecodeError:
        return raw
