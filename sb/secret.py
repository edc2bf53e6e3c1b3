"""The one type that carries values of secrets, passwords and keys through the program."""

from __future__ import annotations

import hmac
from types import TracebackType
from typing import Final, NoReturn, final

_REDACTED: Final = "Secret(redacted)"


@final
class Secret:
    """Bytes that show themselves to nobody; `reveal` is the only way out.

    Showing it in a traceback or debugger is redacted, because those must not fail. Everything else
    that would make text or a copy of it (`str`, f-strings, JSON, pickle, `copy`) raises: a redacted
    word sent where a value belongs is a bug that should be loud.

    Wiping is best effort: the buffer is zeroed, but copies that `reveal` handed out are Python's.
    """

    __slots__ = ("_value", "_wiped")
    # A value in a set or dict key outlives its use, and a hash of a short value gives it away.
    __hash__ = None  # type: ignore[assignment]  # the documented way to make a class unhashable
    __iter__ = None

    def __init__(self, value: bytes | bytearray) -> None:
        if not isinstance(value, bytes | bytearray):
            raise TypeError("a Secret is made of bytes or a bytearray")
        self._value = bytearray(value)
        self._wiped = False

    @classmethod
    def from_text(cls, text: str) -> Secret:
        """Return the text as UTF-8 bytes; raise ValueError, without the text, when it has none."""
        # Checked first, because UnicodeEncodeError would carry the whole text along.
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise ValueError("the text cannot be encoded as UTF-8")
        return cls(text.encode())

    @property
    def byte_length(self) -> int:
        """The number of bytes, also after a wipe."""
        return len(self._value)

    def reveal(self) -> bytes:
        """Return the value. Say in a comment at the call where it goes next."""
        if self._wiped:
            # Zeros must never be mistaken for a key or a value.
            raise ValueError("the secret was wiped")
        return bytes(self._value)

    def wipe(self) -> None:
        """Overwrite the value with zeros; a second call does nothing more."""
        self._value[:] = bytes(len(self._value))
        self._wiped = True

    def __enter__(self) -> Secret:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.wipe()

    def __eq__(self, other: object) -> bool:
        """Compare in constant time; a wiped secret equals nothing."""
        if not isinstance(other, Secret):
            return NotImplemented
        same = hmac.compare_digest(self._value, other._value)
        return same and not (self._wiped or other._wiped)

    def __repr__(self) -> str:
        return _REDACTED

    def __str__(self) -> str:
        raise TypeError("a Secret has no text form")

    def __format__(self, spec: str) -> NoReturn:
        raise TypeError("a Secret cannot be formatted")

    def __bytes__(self) -> NoReturn:
        raise TypeError("a Secret leaves only through reveal()")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # Serves pickle, copy.copy, copy.deepcopy and with it dataclasses.asdict.
        raise TypeError("a Secret cannot be pickled or copied")
