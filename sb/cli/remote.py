"""A running API from a terminal: where it is, who signs in, and what it refused."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

DEFAULT_URL = "http://127.0.0.1:18080"
#: How long a call that waits for something asks the server to wait.
WAIT_SECONDS = 20
#: A server that does not answer is not waited for: the session ends by itself before long.
SIGN_OUT_SECONDS = 5
#: What a refusal says that is told in other words than its own.
TOLD = ("error", "message", "request_id", "fields", "at", "permission", "scope")


class RefusedError(Exception):
    """The server refused, or there is nothing to ask it; carries what to say and what it said."""

    def __init__(self, text: str, body: Any = None) -> None:
        super().__init__(text)
        self.body = body


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command what every call needs."""
    parser.add_argument("--url", default=os.environ.get("SB_URL", DEFAULT_URL), help="or SB_URL")
    parser.add_argument(
        "--as",
        dest="email",
        default=os.environ.get("SB_EMAIL"),
        help="sign in as this address (or SB_EMAIL; the password from SB_PASSWORD or asked for); "
        "without it SB_TOKEN is used",
    )
    parser.add_argument("--json", action="store_true", help="print the server's answer as JSON")
    parser.set_defaults(typed=None)


def run(
    options: argparse.Namespace, step: Callable[[httpx.Client, argparse.Namespace], int]
) -> int:
    """Take the step in a session that ends with it, and return its exit status.

    It is 1 after saying what was refused. A session that SB_TOKEN names goes on.
    """
    try:
        _require_scheme(options.url)
        with httpx.Client(base_url=f"{options.url}/api/v1", timeout=WAIT_SECONDS + 15) as http:
            _sign_in(http, options)
            try:
                return int(step(http, options))
            finally:
                _sign_out(http, options)
    except RefusedError as problem:
        sys.stderr.write(f"{problem}\n")
    except (httpx.HTTPError, httpx.InvalidURL) as problem:
        sys.stderr.write(f"{options.url} cannot be reached ({type(problem).__name__})\n")
    return 1


def _require_scheme(url: str) -> None:
    if not url.lower().startswith(("http://", "https://")):
        msg = f"{url} is no address of a server: write http:// or https:// before it"
        raise RefusedError(msg)


def _sign_in(http: httpx.Client, options: argparse.Namespace) -> None:
    token = os.environ.get("SB_TOKEN")
    if options.email:
        body = {"email": options.email, "password": password(options)}
        token = call(http, "POST", "/auth/login", body)["token"]
    if not token:
        msg = "say who you are with --as, or set SB_TOKEN"
        raise RefusedError(msg)
    http.headers["Authorization"] = f"Bearer {token}"


def _sign_out(http: httpx.Client, options: argparse.Namespace) -> None:
    """End the session that this command began; what it was for is done or refused by now."""
    if options.email:
        with contextlib.suppress(httpx.HTTPError):
            http.post("/auth/logout", timeout=SIGN_OUT_SECONDS)


def password(options: argparse.Namespace) -> str:
    """Return the person's password: from the environment, or asked for once."""
    found = options.typed or os.environ.get("SB_PASSWORD")
    if not found:
        options.typed = found = ask(
            f"Password of {options.email}: " if options.email else "Current password: ",
            "set SB_PASSWORD, or SB_TOKEN to that of a session and leave out --as and SB_EMAIL",
        )
    return str(found)


def new_password() -> str:
    """Return the password to come: from the environment, or typed twice the same."""
    if found := os.environ.get("SB_NEW_PASSWORD"):
        return found
    found = ask("New password: ", "set SB_NEW_PASSWORD")
    if ask("The same again: ", "set SB_NEW_PASSWORD") != found:
        msg = "the two are not the same: nothing was changed"
        raise RefusedError(msg)
    return found


def ask(question: str, otherwise: str) -> str:
    """Return what is typed without an echo, or refuse where nobody can type unseen."""
    try:
        with warnings.catch_warnings():
            # It would go on, and show what is typed.
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(question)
    except (EOFError, getpass.GetPassWarning):
        msg = f"there is no terminal to ask on: {otherwise}"
        raise RefusedError(msg) from None


def call(http: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    """Return the answer, or raise what was refused."""
    response = http.request(method, path, json=body)
    if response.status_code < 400:
        return response.json() if response.content else None
    try:
        found = response.json()
        text = f"{found['error']}: {found['message']} (request id {found['request_id']})"
        reasons = [*_reasons(found), *_wait(response)]
    except (ValueError, KeyError):
        found, text, reasons = None, f"the server answered {response.status_code}", []
    raise RefusedError("\n".join([text, *reasons]), found)


def _reasons(refusal: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for everything the refusal says beside its sentence."""
    for item in refusal.get("fields", []):
        place = f"{item['field']}: " if item["field"] else ""
        yield f"  {shown(place + item['reason'])}"
    for name, detail in refusal.items():
        if name not in TOLD:
            text = ", ".join(map(_plain, detail)) if isinstance(detail, list) else str(detail)
            yield f"  {shown(f'{name}: {text}')}"
    if "permission" in refusal:
        yield f"  {_missing(refusal)}"
    if refusal["error"] == "password_change_required":
        yield "  `sb password` does that"


def _wait(response: httpx.Response) -> Iterator[str]:
    """Yield how long to wait where the refusal is one for now."""
    if seconds := response.headers.get("Retry-After"):
        yield f"  {shown(f'try again in {seconds} s')}"


def _plain(detail: object) -> str:
    """Return one of several details in words: of what has fields, those that say something."""
    if not isinstance(detail, Mapping):
        return str(detail)
    return " ".join(f"{key}={value!r}" for key, value in detail.items() if value is not None)


def _missing(refusal: Mapping[str, Any]) -> str:
    """Return which permission was missing, and who can give it where."""
    at = {"global": "unscoped", "any": "at any scope"}.get(refusal.get("scope", ""), "for this")
    return (
        f"you need {refusal['permission']} {at}: whoever holds user_role.edit there can give you "
        "a role that has it, with POST /api/v1/user-roles or `sb apply`"
    )


def shown(text: str) -> str:
    """Return the text with everything escaped that a terminal would act upon."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
