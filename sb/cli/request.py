"""`sb request`: the steps of the main job as commands, over HTTP, as the person who signs in."""

from __future__ import annotations

import argparse
import base64
import json
import sys
from typing import Any

import httpx

from sb.cli import remote
from sb.cli.remote import WAIT_SECONDS, RefusedError

OPEN = ("pending", "approved")


def configure(_name: str, parser: argparse.ArgumentParser) -> None:
    """Give the command its verbs and their options."""
    shared = argparse.ArgumentParser(add_help=False)
    remote.add_options(shared)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    _target(verbs.add_parser("read", parents=[shared], help="ask to read keys"), _read)
    patch = verbs.add_parser("patch", parents=[shared], help="ask to change keys")
    _target(patch, _patch)
    decisions = (("approve", _approve), ("reject", _reject), ("cancel", _cancel))
    for name, run in (("show", _show), *decisions):
        verb = verbs.add_parser(name, parents=[shared], help=f"{name} a request")
        verb.add_argument("request_id")
        if name == "show":
            verb.add_argument("--wait", action="store_true", help="until the request has ended")
        elif name != "cancel":
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
    parser.add_argument("--provider", default="vault", help="vault (the default), file, …")
    parser.add_argument("--connection", help="id of the provider connection")
    parser.add_argument("--project", help="id of the project")
    parser.add_argument("--environment", help="name of the project's environment")
    parser.add_argument("--justification", required=True, help="why you need it")
    help_text = "a key to read (repeatable)" if step is _read else "NAME, or NAME=VALUE"
    parser.add_argument("--key", action="append", default=[], help=help_text)
    parser.set_defaults(step=step)


def _command(options: argparse.Namespace) -> int:
    return remote.run(options, options.step)


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
    return _show_one(remote.call(http, "POST", "/requests/read", body), options)


def _patch(http: httpx.Client, options: argparse.Namespace) -> int:
    values: dict[str, str] = {}
    for item in options.key:
        name, equals, value = item.partition("=")
        # Asked for without an echo when not given: arguments are visible to other processes.
        values[name] = value if equals else remote.ask(f"New value of {name}: ", "write NAME=VALUE")
    body = {**_submission(options), "key_values": values}
    return _show_one(remote.call(http, "POST", "/requests", body), options)


def _show(http: httpx.Client, options: argparse.Namespace) -> int:
    path = f"/requests/{options.request_id}"
    found = remote.call(http, "GET", path)
    while options.wait and found["status"] in OPEN:
        found = remote.call(http, "GET", f"{path}?wait={WAIT_SECONDS}")
    status = _show_one(found, options)
    if found["justification"] and not options.json:
        sys.stdout.write(f"  because: {remote.shown(found['justification'])}\n")
    return status


def _approve(http: httpx.Client, options: argparse.Namespace) -> int:
    body = {"comment": options.comment} if options.comment else {}
    path = f"/requests/{options.request_id}/approve"
    return _show_one(remote.call(http, "POST", path, body), options)


def _reject(http: httpx.Client, options: argparse.Namespace) -> int:
    if not options.comment:
        msg = "say why with --reason"
        raise RefusedError(msg)
    path = f"/requests/{options.request_id}/reject"
    return _show_one(remote.call(http, "POST", path, {"reason": options.comment}), options)


def _cancel(http: httpx.Client, options: argparse.Namespace) -> int:
    path = f"/requests/{options.request_id}/cancel"
    return _show_one(remote.call(http, "POST", path), options)


def _reveal(http: httpx.Client, options: argparse.Namespace) -> int:
    request, path = f"/requests/{options.request_id}", f"/requests/{options.request_id}/wraps"
    if remote.call(http, "GET", request)["status"] == "approved":
        # The agent is at work; its end is a matter of moments.
        remote.call(http, "GET", f"{request}?wait={WAIT_SECONDS}")
    listed = remote.call(http, "GET", path)
    # Without --key everything that is left; all of it when nothing is, so that the server says why.
    wanted = [wrap for wrap in listed if not options.key or wrap["key_name"] in options.key]
    found = [wrap for wrap in wanted if options.key or not wrap["consumed"]] or wanted
    if not found:
        msg = "there is nothing to reveal yet; see `sb request show`"
        raise RefusedError(msg)
    values: dict[str, str] = {}
    try:
        for wrap in found:
            answer = remote.call(http, "GET", f"{path}/{wrap['id']}")
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
    found = remote.call(http, "GET", f"/requests?limit={options.limit}{status}")
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
            sys.stdout.write(f"  {name.replace('_', ' ')}: {remote.shown(request[name])}\n")
    if request["target_provider_config"]:
        routing = ", ".join(f"{k}={v}" for k, v in request["target_provider_config"].items())
        sys.stdout.write(f"  routing: {remote.shown(routing)}\n")
    return 0


def _line(request: dict[str, Any]) -> str:
    keys = ",".join(request["target_keys"]) or "all keys"
    target = f"{request['target_provider_type']}:{request['target_secret_ref']} [{keys}]"
    who = request["requester_display"]
    line = f"{request['id']}  {request['status']:<9} {request['type']:<5} {target}  by {who}"
    return remote.shown(line)
