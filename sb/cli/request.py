"""`sb request`: the steps of the main job as commands, over HTTP, as the person who signs in."""

from __future__ import annotations

import argparse
import base64
import getpass
import json
import os
import sys
from typing import Any

import httpx

DEFAULT_URL = "http://127.0.0.1:18080"
#: How long one call waits for a request to end; the server answers within a little more.
WAIT_SECONDS = 20
OPEN = ("pending", "approved")


class _RefusedError(Exception):
    """The server refused; carries what it said."""


def configure(_name: str, parser: argparse.ArgumentParser) -> None:
    """Give the command its verbs and their options."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--url", default=os.environ.get("SB_URL", DEFAULT_URL), help="or SB_URL")
    shared.add_argument(
        "--as",
        dest="email",
        default=os.environ.get("SB_EMAIL"),
        help="sign in as this address (or SB_EMAIL; the password from SB_PASSWORD or asked for); "
        "without it SB_TOKEN is used",
    )
    shared.add_argument("--json", action="store_true", help="print the server's answer as JSON")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    _target(verbs.add_parser("read", parents=[shared], help="ask to read keys"), _read)
    patch = verbs.add_parser("patch", parents=[shared], help="ask to change keys")
    _target(patch, _patch)
    for name, run in (("show", _show), ("approve", _approve), ("reject", _reject)):
        verb = verbs.add_parser(name, parents=[shared], help=f"{name} a request")
        verb.add_argument("request_id")
        if name == "show":
            verb.add_argument("--wait", action="store_true", help="until the request has ended")
        else:
            verb.add_argument("--reason" if name == "reject" else "--comment", dest="comment")
        verb.set_defaults(step=run)
    reveal = verbs.add_parser("reveal", parents=[shared], help="reveal the values, once")
    reveal.add_argument("request_id")
    reveal.add_argument("--key", action="append", default=[], help="only this key (repeatable)")
    reveal.set_defaults(step=_reveal)
    listing = verbs.add_parser("list", parents=[shared], help="list requests you may see")
    listing.add_argument("--status")
    listing.add_argument("--limit", type=int, default=20)
    listing.set_defaults(step=_list)
    parser.set_defaults(run=_command)


def _target(parser: argparse.ArgumentParser, step: Any) -> None:
    parser.add_argument("secret_ref", help="the secret's path in its provider")
    parser.add_argument("--provider", default="vault", help="vault, file, …")
    parser.add_argument("--connection", help="id of the provider connection")
    parser.add_argument("--project", help="id of the project")
    parser.add_argument("--environment", help="name of the project's environment")
    parser.add_argument("--justification", required=True, help="why you need it")
    help_text = "a key to read (repeatable)" if step is _read else "NAME, or NAME=VALUE"
    parser.add_argument("--key", action="append", default=[], help=help_text)
    parser.set_defaults(step=step)


def _command(options: argparse.Namespace) -> int:
    try:
        with httpx.Client(base_url=f"{options.url}/api/v1", timeout=WAIT_SECONDS + 15) as http:
            _sign_in(http, options)
            return int(options.step(http, options))
    except _RefusedError as problem:
        sys.stderr.write(f"{problem}\n")
    except httpx.HTTPError as problem:
        sys.stderr.write(f"{options.url} cannot be reached ({type(problem).__name__})\n")
    return 1


def _sign_in(http: httpx.Client, options: argparse.Namespace) -> None:
    token = os.environ.get("SB_TOKEN")
    if options.email:
        password = os.environ.get("SB_PASSWORD") or _ask(
            f"Password of {options.email}: ", "set SB_PASSWORD"
        )
        body = {"email": options.email, "password": password}
        token = _call(http, "POST", "/auth/login", body)["token"]
    if not token:
        msg = "say who you are with --as, or set SB_TOKEN"
        raise _RefusedError(msg)
    http.headers["Authorization"] = f"Bearer {token}"


def _ask(question: str, otherwise: str) -> str:
    try:
        return getpass.getpass(question)
    except EOFError:
        msg = f"there is no terminal to ask on: {otherwise}"
        raise _RefusedError(msg) from None


def _call(http: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    response = http.request(method, path, json=body)
    if response.status_code < 400:
        return response.json() if response.content else None
    try:
        found = response.json()
        text = f"{found['error']}: {found['message']} (request id {found['request_id']})"
        reasons = [f"  {item['field']}: {item['reason']}" for item in found.get("fields", [])]
    except (ValueError, KeyError):
        text, reasons = f"the server answered {response.status_code}", []
    raise _RefusedError("\n".join([text, *reasons]))


def _submission(options: argparse.Namespace) -> dict[str, Any]:
    body = {
        "target_provider_type": options.provider,
        "target_secret_ref": options.secret_ref,
        "justification": options.justification,
        "provider_connection_id": options.connection,
        "project_id": options.project,
        "environment": options.environment,
    }
    return {name: value for name, value in body.items() if value is not None}


def _read(http: httpx.Client, options: argparse.Namespace) -> int:
    body = {**_submission(options), "target_keys": options.key}
    return _show_one(_call(http, "POST", "/requests/read", body), options)


def _patch(http: httpx.Client, options: argparse.Namespace) -> int:
    values: dict[str, str] = {}
    for item in options.key:
        name, equals, value = item.partition("=")
        # Asked for without an echo when not given: arguments are visible to other processes.
        values[name] = value if equals else _ask(f"New value of {name}: ", "write NAME=VALUE")
    body = {**_submission(options), "key_values": values}
    return _show_one(_call(http, "POST", "/requests", body), options)


def _show(http: httpx.Client, options: argparse.Namespace) -> int:
    path = f"/requests/{options.request_id}"
    found = _call(http, "GET", path)
    while options.wait and found["status"] in OPEN:
        found = _call(http, "GET", f"{path}?wait={WAIT_SECONDS}")
    return _show_one(found, options)


def _approve(http: httpx.Client, options: argparse.Namespace) -> int:
    body = {"comment": options.comment} if options.comment else {}
    path = f"/requests/{options.request_id}/approve"
    return _show_one(_call(http, "POST", path, body), options)


def _reject(http: httpx.Client, options: argparse.Namespace) -> int:
    if not options.comment:
        msg = "say why with --reason"
        raise _RefusedError(msg)
    path = f"/requests/{options.request_id}/reject"
    return _show_one(_call(http, "POST", path, {"reason": options.comment}), options)


def _reveal(http: httpx.Client, options: argparse.Namespace) -> int:
    request, path = f"/requests/{options.request_id}", f"/requests/{options.request_id}/wraps"
    if _call(http, "GET", request)["status"] == "approved":
        # The agent is at work; its end is a matter of moments.
        _call(http, "GET", f"{request}?wait={WAIT_SECONDS}")
    listed = _call(http, "GET", path)
    # Without --key everything that is left; all of it when nothing is, so that the server says why.
    wanted = [wrap for wrap in listed if not options.key or wrap["key_name"] in options.key]
    found = [wrap for wrap in wanted if options.key or not wrap["consumed"]] or wanted
    if not found:
        msg = "there is nothing to reveal yet; see `sb request show`"
        raise _RefusedError(msg)
    values: dict[str, str] = {}
    try:
        for wrap in found:
            answer = _call(http, "GET", f"{path}/{wrap['id']}")
            # Printed for the person who asked, and nowhere else.
            values[wrap["key_name"]] = base64.b64decode(answer["value"]).decode(errors="replace")
            if not options.json:
                sys.stdout.write(f"{wrap['key_name']}={values[wrap['key_name']]}\n")
    finally:
        # A value that was revealed is spent: it is shown, whatever became of the next one.
        if options.json and values:
            sys.stdout.write(json.dumps(values) + "\n")
    return 0


def _list(http: httpx.Client, options: argparse.Namespace) -> int:
    status = f"&status={options.status}" if options.status else ""
    found = _call(http, "GET", f"/requests?limit={options.limit}{status}")
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    for request in found:
        sys.stdout.write(_line(request) + "\n")
    return 0


def _show_one(request: dict[str, Any], options: argparse.Namespace) -> int:
    if options.json:
        sys.stdout.write(json.dumps(request) + "\n")
        return 0
    sys.stdout.write(_line(request) + "\n")
    may = ", ".join(request["allowed_actions"]) or "nothing"
    votes = f"{request['approvals_count']} of {request['approvals_required']} approvals"
    sys.stdout.write(f"  {votes}; you may: {may}\n")
    for name in ("reject_reason", "failure_reason"):
        if request[name]:
            sys.stdout.write(f"  {name.replace('_', ' ')}: {_shown(request[name])}\n")
    if request["target_provider_config"]:
        routing = ", ".join(f"{k}={v}" for k, v in request["target_provider_config"].items())
        sys.stdout.write(f"  routing: {_shown(routing)}\n")
    return 0


def _line(request: dict[str, Any]) -> str:
    keys = ",".join(request["target_keys"]) or "all keys"
    target = f"{request['target_provider_type']}:{request['target_secret_ref']} [{keys}]"
    who = request["requester_display"]
    line = f"{request['id']}  {request['status']:<9} {request['type']:<5} {target}  by {who}"
    return _shown(line)


def _shown(text: str) -> str:
    """Return the text with everything escaped that a terminal would act upon."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
