"""A running API from a terminal: where it is, who signs in, and what it refused."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable
from typing import Any

import httpx

DEFAULT_URL = "http://127.0.0.1:18080"
#: How long a call that waits for something asks the server to wait.
WAIT_SECONDS = 20


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


def run(
    options: argparse.Namespace, step: Callable[[httpx.Client, argparse.Namespace], int]
) -> int:
    """Sign in, take the step, and return its exit status, or 1 after saying what was refused."""
    try:
        with httpx.Client(base_url=f"{options.url}/api/v1", timeout=WAIT_SECONDS + 15) as http:
            _sign_in(http, options)
            return int(step(http, options))
    except RefusedError as problem:
        sys.stderr.write(f"{problem}\n")
    except httpx.HTTPError as problem:
        sys.stderr.write(f"{options.url} cannot be reached ({type(problem).__name__})\n")
    return 1


def _sign_in(http: httpx.Client, options: argparse.Namespace) -> None:
    token = os.environ.get("SB_TOKEN")
    if options.email:
        password = os.environ.get("SB_PASSWORD") or ask(
            f"Password of {options.email}: ", "set SB_PASSWORD"
        )
        body = {"email": options.email, "password": password}
        token = call(http, "POST", "/auth/login", body)["token"]
    if not token:
        msg = "say who you are with --as, or set SB_TOKEN"
        raise RefusedError(msg)
    http.headers["Authorization"] = f"Bearer {token}"


def ask(question: str, otherwise: str) -> str:
    """Return what is typed without an echo, or refuse where nobody can type."""
    try:
        return getpass.getpass(question)
    except EOFError:
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
        reasons = [f"  {item['field']}: {item['reason']}" for item in found.get("fields", [])]
    except (ValueError, KeyError):
        found, text, reasons = None, f"the server answered {response.status_code}", []
    raise RefusedError("\n".join([text, *reasons]), found)


def shown(text: str) -> str:
    """Return the text with everything escaped that a terminal would act upon."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
