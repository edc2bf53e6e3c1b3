"""Opaque tokens: random text that is shown once and stored only as its hash."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

TOKEN_BYTES: Final = 32
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")


def new_token() -> str:
    """Return a new token: 32 random bytes as 43 characters of base64url without padding."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def token_hash(token: str) -> bytes:
    """Return the SHA-256 of the token's text, the only form in which it is stored.

    A plain hash is enough for 256 random bits, and finding a row by it leaks no useful timing.
    """
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def is_token(text: str) -> bool:
    """Tell whether the text has exactly the shape of a token; says nothing about its worth."""
    return _TOKEN.fullmatch(text) is not None
