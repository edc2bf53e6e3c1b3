"""`sb request`: the steps of the main job as commands, over HTTP, as the person who signs in."""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from typing import Any

import httpx

from sb.cli import remote, request_lines, reveals
from sb.cli.remote import WAIT_SECONDS, RefusedError

OPEN = ("pending", "approved")
#: The reason of a submit that has to name a project.
NO_PROJECT = "project_id_required"
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


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
    listing.add_argument(
        "--needs-my-decision", action="store_true", help="only those you can vote on now"
    )
    listing.set_defaults(step=_list)
    parser.set_defaults(run=_command)


def _target(parser: argparse.ArgumentParser, step: Any) -> None:
    parser.add_argument("secret_ref", help="the secret's path in its provider")
    parser.add_argument("--provider", default="vault", help="vault (the default), file, …")
    parser.add_argument("--connection", help="id of the provider connection")
    parser.add_argument("--project", help="name or id of the project")
    parser.add_argument("--environment", help="name of the project's environment")
    parser.add_argument("--justification", required=True, help="why you need it")
    each = "a key to read (repeatable); without any, every key of the secret"
    help_text = each if step is _read else "NAME, or NAME=VALUE"
    parser.add_argument("--key", action="append", default=[], help=help_text)
    parser.set_defaults(step=step)


def _command(options: argparse.Namespace) -> int:
    return remote.run(options, options.step)


def _submission(http: httpx.Client, options: argparse.Namespace) -> dict[str, Any]:
    body = {
        "target_provider_type": options.provider,
        "target_secret_ref": options.secret_ref,
        "justification": options.justification,
        "provider_connection_id": options.connection,
        "project_id": options.project and _project_id(http, options.project),
        "environment": options.environment,
    }
    return {name: value for name, value in body.items() if value is not None}


def _read(http: httpx.Client, options: argparse.Namespace) -> int:
    body = {**_submission(http, options), "target_keys": options.key}
    status = _show_one(_submitted(http, "/requests/read", body), options)
    if not options.key and not options.json:
        sys.stdout.write(f"  {request_lines.ALL_KEYS}\n")
    return status


def _patch(http: httpx.Client, options: argparse.Namespace) -> int:
    values: dict[str, str] = {}
    for item in options.key:
        name, equals, value = item.partition("=")
        # Asked for without an echo when not given: arguments are visible to other processes.
        values[name] = value if equals else _asked(name)
    body = {**_submission(http, options), "key_values": values}
    return _show_one(_submitted(http, "/requests", body), options)


def _project_id(http: httpx.Client, named: str) -> str:
    """Return the id of the project, which may be named by it."""
    if ID.fullmatch(named):
        return named
    found = remote.call(http, "GET", "/users/me/projects")
    for project in found:
        if project["name"] == named:
            return str(project["id"])
    msg = f"you may read no project {named!r}: {_projects(found)}"
    raise RefusedError(msg)


def _projects(found: list[dict[str, Any]]) -> str:
    names = ", ".join(project["name"] for project in found if project["status"] == "active")
    return remote.shown(f"name one with --project: {names}" if names else "you have none")


def _submitted(http: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    try:
        return remote.call(http, "POST", path, body)
    except RefusedError as problem:
        if not isinstance(problem.body, dict) or problem.body.get("reason") != NO_PROJECT:
            raise
        first = str(problem).partition("\n")[0]
        mine = _projects(remote.call(http, "GET", "/users/me/projects"))
        raise RefusedError(f"{first}\n  {mine}", problem.body) from None


def _asked(name: str) -> str:
    return remote.ask(f"New value of {name}: ", f"give the value with --key {name}=VALUE")


def _show(http: httpx.Client, options: argparse.Namespace) -> int:
    path = f"/requests/{options.request_id}"
    found = remote.call(http, "GET", path)
    while options.wait and found["status"] in OPEN:
        found = remote.call(http, "GET", f"{path}?wait={WAIT_SECONDS}")
    status = _show_one(found, options)
    if options.json:
        return status
    lines = [*request_lines.votes(found), *_fate(http, found)]
    if found["justification"]:
        lines.append(f"because: {remote.shown(found['justification'])}")
    sys.stdout.writelines(f"  {line}\n" for line in lines)
    return status


def _fate(http: httpx.Client, request: dict[str, Any]) -> list[str]:
    """Return what became of the values, to whoever asked for them; nobody else may know."""
    if (request["type"], request["status"]) != ("read", "executed"):
        return []
    if remote.call(http, "GET", "/users/me")["id"] != request["requester_id"]:
        return []
    told = request_lines.revealed(remote.call(http, "GET", f"/requests/{request['id']}/wraps"))
    return [] if told is None else [told]


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
    path = f"/requests/{options.request_id}"
    request = remote.call(http, "GET", path)
    if request["status"] == "approved" and request["type"] != "patch":
        # The agent is at work; its end is a matter of moments.
        request = remote.call(http, "GET", f"{path}?wait={WAIT_SECONDS}")
    path = f"{path}/wraps"
    listed = remote.call(http, "GET", path)
    if (reason := reveals.nothing_because(request, listed, options.key)) is not None:
        raise RefusedError(reason)
    # Without --key everything that is left; all of it when nothing is, so that the server says why.
    wanted = [wrap for wrap in listed if not options.key or wrap["key_name"] in options.key]
    found = [wrap for wrap in wanted if options.key or not wrap["consumed"]] or wanted
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
    mine = "&needs_my_decision=true" if options.needs_my_decision else ""
    found = remote.call(http, "GET", f"/requests?limit={options.limit}{status}{mine}")
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    sys.stdout.writelines(f"{line}\n" for line in request_lines.listed(found))
    return 0


def _show_one(request: dict[str, Any], options: argparse.Namespace) -> int:
    if options.json:
        sys.stdout.write(json.dumps(request) + "\n")
        return 0
    sys.stdout.write(request_lines.summary(request) + "\n")
    sys.stdout.write(f"  {request_lines.context(request)}\n")
    may = ", ".join(request["allowed_actions"]) or "nothing"
    votes = f"{request['approvals_count']} of {request['approvals_required']} approvals"
    sys.stdout.write(f"  {votes}; you may: {may}\n")
    if request["blocked_by"]:
        sys.stdout.write(f"  cannot be approved as things are now: {request['blocked_by']}\n")
    for name in ("reject_reason", "failure_reason"):
        if request[name]:
            sys.stdout.write(f"  {name.replace('_', ' ')}: {remote.shown(request[name])}\n")
    if request["target_provider_config"]:
        routing = ", ".join(f"{k}={v}" for k, v in request["target_provider_config"].items())
        sys.stdout.write(f"  routing: {remote.shown(routing)}\n")
    return 0
