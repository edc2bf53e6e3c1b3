"""Errors with a meaning: one class each, with a stable code, a status and a public sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class SbError(Exception):
    """Base of every error this product raises on purpose."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    message: ClassVar[str] = "Something went wrong on our side. The request id finds it in the log."

    def __init__(
        self,
        message: str | None = None,
        *,
        audit: Denial | None = None,
        headers: Mapping[str, str] | None = None,
        **details: Any,
    ) -> None:
        self.public_message = message or self.message
        self.details = details
        self.audit = audit
        self.headers = dict(headers or {})
        super().__init__(self.public_message)


class Denial:
    """What the audit row of a refusal says; written in its own transaction after the rollback."""

    __slots__ = ("action", "correlation_id", "metadata", "resource", "status")

    def __init__(
        self,
        action: str,
        resource: str,
        *,
        correlation_id: str | None = None,
        status: str = "denied",
        **metadata: Any,
    ) -> None:
        self.action = action
        self.resource = resource
        self.correlation_id = correlation_id
        self.status = status
        self.metadata = metadata


class InternalError(SbError):
    """Something went wrong on our side. The request id finds it in the log."""


class ConstraintViolatedError(InternalError):
    """A named constraint refused a row and no meaning is registered for it."""

    def __init__(self, constraint: str) -> None:
        super().__init__()
        self.constraint = constraint


class DatabaseUnavailableError(SbError):
    code = "database_unavailable"
    status = 503
    message = "The database cannot be reached. Nothing was changed; try again shortly."


class DatabaseBusyError(SbError):
    code = "database_busy"
    status = 503
    message = "The database took too long to answer. Nothing was changed; try again."


class CoordUnavailableError(SbError):
    code = "coordination_unavailable"
    status = 503
    message = "The coordination store cannot be reached. Try again shortly."


class KmsUnavailableError(SbError):
    code = "kms_unavailable"
    status = 503
    message = "The key management service cannot be reached. Nothing was changed; try again."


class InvalidInputError(SbError):
    code = "invalid_request"
    status = 400
    message = "The request is not valid."


class AuthenticationRequiredError(SbError):
    code = "authentication_required"
    status = 401
    message = "Authentication required. Sign in at POST /api/v1/auth/login."


class PermissionDeniedError(SbError):
    code = "permission_denied"
    status = 403
    message = "You do not have the permission this needs."


class NotFoundError(SbError):
    code = "not_found"
    status = 404
    message = "There is nothing here, or you may not see it."


class RateLimitedError(SbError):
    code = "rate_limited"
    status = 429
    message = "Rate limit exceeded. Wait for the seconds in Retry-After."
