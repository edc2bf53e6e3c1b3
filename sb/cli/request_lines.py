"""What the terminal says about a request: where it reaches, who is asked, and how long is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sb.cli.remote import shown
from sb.clock import utc_now

ALL_KEYS = "no --key was given: every key of the secret is asked for"
UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
#: What ends a request that is in this state, with the words before the time that is left.
ENDS = {"pending": ("expires_at", "expires"), "approved": ("execute_before_at", "to be done")}


def summary(request: Mapping[str, Any], where: str = "") -> str:
    """Return the request in one line."""
    keys = ",".join(request["target_keys"]) or "all keys"
    target = f"{request['target_provider_type']}:{request['target_secret_ref']} [{keys}]"
    who = request["requester_display"]
    status = "overdue" if request.get("overdue") else request["status"]
    line = f"{request['id']}  {status:<9} {request['type']:<5} {where}{target}  by {who}"
    return shown(line)


def listed(requests: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line each, with where they reach in a column."""
    places = [shown(place(request)) for request in requests]
    width = max(map(len, places), default=0)
    return [
        summary(request, f"{where:<{width}}  ")
        for request, where in zip(requests, places, strict=True)
    ]


def place(request: Mapping[str, Any]) -> str:
    """Return the project and environment, with the kind unless the environment's name is it."""
    if request["project_name"] is None:
        return "no project"
    name, kind = request["environment_name"], request["environment_kind"]
    if name is None:
        return str(request["project_name"])
    return f"{request['project_name']}/{name}" + ("" if name == kind else f" ({kind})")


def context(request: Mapping[str, Any]) -> str:
    """Return where the request reaches, the workflow that decides, and how long that may take."""
    parts = [place(request), f'workflow "{request["workflow_name"]}"']
    field, verb = ENDS.get(request["status"], ("", ""))
    if request.get(field):
        parts.append(_left(datetime.fromisoformat(request[field]), verb))
    return shown(", ".join(parts))


def _left(end: datetime, verb: str) -> str:
    seconds = int((end - utc_now()).total_seconds())
    if seconds <= 0:
        return "out of time"
    unit, length = next(pair for pair in UNITS if seconds >= pair[1])
    return f"{verb} in {seconds // length}{unit}"


def votes(request: Mapping[str, Any]) -> list[str]:
    """Return a line for each vote: who, what, why, and whether its voter could cast it no more."""
    return [shown(_vote(vote)) for vote in request["approvals"]]


def _vote(vote: Mapping[str, Any]) -> str:
    words = {"approve": "approved", "reject": "rejected"}
    line = f"{words.get(vote['decision'], vote['decision'])} by {vote['approver_display']}"
    # Of a request that was decided it is null: what decided stays decided.
    line += " (does not count any more)" if vote.get("counts") is False else ""
    return line + (f": {vote['comment']}" if vote["comment"] else "")


def revealed(wraps: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what became of the values of a request that was done, or None if nothing yet."""
    spent = [str(wrap["key_name"]) for wrap in wraps if wrap["consumed"]]
    if not wraps:
        return "the values are gone: they were revealed or have expired"
    if not spent:
        return None
    if len(spent) < len(wraps):
        return shown(f"revealed already: {', '.join(spent)}")
    return "its value was revealed" if len(spent) == 1 else "its values were revealed"
