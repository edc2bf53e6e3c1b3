"""The only place where errors become responses, and where refusals are put on record."""

from __future__ import annotations

import logging
from typing import Any

from pydantic import BaseModel
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from sb.errors import ConstraintViolatedError, InternalError, NotFoundError, SbError
from sb.http import denials
from sb.http.declare import Reply
from sb.http.state import AppState
from sb.ops.callers import Actor

log = logging.getLogger(__name__)


class MethodNotAllowedError(SbError):
    code = "method_not_allowed"
    status = 405
    message = "This path does not take this method; see the Allow header."


class BodyTooLargeError(SbError):
    code = "body_too_large"
    status = 413
    message = "The body is larger than 1 MiB."


class RequestTimeoutError(SbError):
    code = "request_timeout"
    status = 408
    message = "The body did not arrive in time."


class BadRequestError(SbError):
    code = "bad_request"
    status = 400
    message = "The request cannot be read."


class InvalidIdError(SbError):
    code = "invalid_id"
    status = 400
    message = "An id in the path is not a UUID."


class ErrorBody(BaseModel):
    """What every refused call answers; some codes add details."""

    error: str
    message: str
    request_id: str


async def to_reply(
    problem: Exception,
    *,
    state: AppState,
    by: Actor,
    request_id: str,
    client_ip: str,
    route: str,
) -> Reply:
    """Return the response of an error, after writing the audit row it asks for."""
    error = meaning_of(problem)
    if error.status >= 500:
        _log(problem, error, request_id=request_id, route=route)
    if error.audit is not None:
        await denials.record(error.audit, state=state, by=by, client_ip=client_ip)
    return Reply(
        {
            "error": error.code,
            "message": error.public_message,
            "request_id": request_id,
            **error.details,
        },
        status=error.status,
        headers=error.headers,
    )


def meaning_of(problem: Exception) -> SbError:
    """Return the error behind a framework's exception or a group of one; else an internal one."""
    if isinstance(problem, SbError):
        return problem
    if isinstance(problem, ExceptionGroup):
        # Of children that failed together the gravest speaks, a failure of ours before any other.
        meanings = [meaning_of(inner) for inner in problem.exceptions]
        return max(meanings, key=lambda error: (isinstance(error, InternalError), error.status))
    if isinstance(problem, RequestEntityTooLarge):
        return BodyTooLargeError()
    if isinstance(problem, HTTPException):
        return _http_meaning(problem)
    return InternalError()


def _http_meaning(problem: HTTPException) -> SbError:
    match problem.code:
        case 404:
            return NotFoundError("There is no such path; /docs lists all of them.")
        case 405:
            allow = ", ".join(sorted(getattr(problem, "valid_methods", None) or ()))
            return MethodNotAllowedError(headers={"Allow": allow})
        case 408:
            return RequestTimeoutError()
        case 413:
            return BodyTooLargeError()
        case code if code is not None and 400 <= code < 500:
            return BadRequestError()
        case _:
            return InternalError()


def _log(problem: Exception, error: SbError, *, request_id: str, route: str) -> None:
    fields: dict[str, Any] = {"request_id": request_id, "route": route, "error": error.code}
    if isinstance(problem, ConstraintViolatedError):
        fields["constraint"] = problem.constraint
    if error.status == 503:
        log.warning("dependency failed", extra={"fields": fields})
        return
    log.error("request failed", exc_info=problem, extra={"fields": fields})
