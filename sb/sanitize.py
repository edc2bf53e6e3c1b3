"""Error text from outside made fit to store and show: no credentials, no bodies, short."""

from __future__ import annotations

import re
from typing import Final

MAX_LENGTH: Final = 280
_REDACTED: Final = "[REDACTED]"
_BODY: Final = "{...body redacted...}"
_CUT: Final = "..."
_BLOB_LENGTH: Final = 200

# The order matters twice: a PEM block may hold blanks that end a URL, and a Vault token of the old
# form is known only by what stands before it, which another redaction may have changed.
_CREDENTIALS: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        # PEM, also when its end was cut off.
        r"-----BEGIN [A-Z0-9 ]{1,64}-----.*?(?:-----END [A-Z0-9 ]{1,64}-----|\Z)",
        # AWS access key ids.
        r"(?:AKIA|ASIA)[A-Z0-9]{16}",
        # Vault service, batch and recovery tokens.
        r"hv[sbr]\.[A-Za-z0-9_-]{20,}",
        # JSON web tokens, one part being enough. A pattern that insists on a later dot would
        # search every run without one over and over.
        r"eyJ[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9_-]*){0,2}",
        # Google access tokens.
        r"ya29\.[A-Za-z0-9_-]+",
        # GitHub tokens.
        r"gh[pousr]_[A-Za-z0-9]{20,}",
        r"github_pat_[A-Za-z0-9_]{22,}",
        # Vault tokens before 1.10.
        r"(?<![A-Za-z0-9.])s\.[A-Za-z0-9]{24,}",
        # User and password in a URL.
        r"(?<=://)[^/\s]+@",
    )
)


def sanitize_error(text: str) -> str:
    """Return the text without credentials and long bodies, at most 280 characters.

    A second call changes nothing. The order is load-bearing: a credential that is cut in two is no
    longer recognised, so everything is redacted before anything is shortened.
    """
    # Postgres stores no NUL, and one in the middle would hide a credential.
    short = _redact_bodies(redact_credentials(text.replace("\0", "")))
    if len(short) > MAX_LENGTH:
        short = short[: MAX_LENGTH - len(_CUT)] + _CUT
    return short.strip()


def redact_credentials(text: str) -> str:
    """Return the text with everything that looks like a credential replaced."""
    for pattern in _CREDENTIALS:
        text = pattern.sub(_REDACTED, text)
    return text


def _redact_bodies(text: str) -> str:
    """Replace outermost braces that hold 200 characters or more, nested ones included."""
    kept: list[str] = []
    depth = start = done = 0
    for position, char in enumerate(text):
        if char == "{":
            start = position if depth == 0 else start
            depth += 1
        elif char == "}" and depth > 0:
            depth -= 1
            if depth == 0 and position - start - 1 >= _BLOB_LENGTH:
                kept += (text[done:start], _BODY)
                done = position + 1
    # A body that was cut off has no end. Its limit is higher by the length of our own cut, so that
    # a short body that we cut ourselves is not taken for one the next time.
    if depth > 0 and len(text) - start - 1 >= _BLOB_LENGTH + len(_CUT):
        kept += (text[done:start], _BODY)
        done = len(text)
    return "".join([*kept, text[done:]])
