"""Why a request has nothing to reveal: not yet, not any more, or never."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sb.cli.remote import shown

NEVER = "nothing was read and nothing will be"


def nothing_because(
    request: Mapping[str, Any], wraps: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> str | None:
    """Return the sentence that says why nothing can be revealed, or None where something may be."""
    ended = _ended(request)
    if ended is not None:
        return shown(ended)
    if not wraps:
        return _missing(request)
    there = [str(wrap["key_name"]) for wrap in wraps]
    unknown = [key for key in keys if key not in there]
    if unknown:
        return shown(
            f"the request has no value of {_listed(unknown)}; it has {_listed(there)}. Nothing was "
            "revealed."
        )
    return None


def _ended(request: Mapping[str, Any]) -> str | None:
    """Return why this request never gets a value in its present state, or None."""
    reason = f": {request['failure_reason']}" if request["failure_reason"] else ""
    if request["type"] == "patch":
        return "the request is a patch: it writes values and has none to reveal"
    match request["status"]:
        case "pending":
            votes = f"{request['approvals_count']} of {request['approvals_required']} approvals"
            return f"the request is pending with {votes}: there is nothing to reveal yet"
        case "rejected":
            why = f" ({request['reject_reason']})" if request["reject_reason"] else ""
            return f"the request was rejected{why}: {NEVER}"
        case "cancelled":
            return f"the request was cancelled: {NEVER}"
        case "expired":
            return f"the request expired{_expiry(request)}: {NEVER}; submit it again"
        case "failed":
            return f"the request failed{reason}. There is nothing to reveal; {_remedy(request)}"
        case _:
            return None


def _remedy(request: Mapping[str, Any]) -> str:
    """Return what to do about a request that failed: what is not there will not be there again."""
    reason = str(request["failure_reason"])
    if ": not_found: " in reason or reason.endswith(" keys exist in the secret"):
        return "check the path and the key names, then submit again"
    return "submit it again"


def _expiry(request: Mapping[str, Any]) -> str:
    told = {
        "request_ttl": " before it was decided",
        "job_ttl": " before an agent could do it",
    }
    return told.get(request["failure_reason"] or "", "")


def _missing(request: Mapping[str, Any]) -> str:
    if request["status"] == "approved":
        return (
            "the request is approved and no agent has read it yet: try again in a moment, and look "
            "for a live agent of its provider connection if that does not help"
        )
    return "the values are gone: they were revealed or have expired. Submit the request again."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(sorted(names))
