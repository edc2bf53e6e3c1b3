"""What a request leads to in the model of `request_model`: values, a job, and its leases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.ops.request_stage import Worker

if TYPE_CHECKING:
    from tests.ops.request_model import Request

LEASE = timedelta(seconds=30)
ATTEMPTS = 3


@dataclass(slots=True, kw_only=True, eq=False)
class Wrap:
    """One stored value; `gone` once its row is deleted or replaced."""

    key: str
    ends_at: datetime
    id: str = ""
    spent_by: str = ""
    gone: bool = False

    @property
    def spent(self) -> bool:
        return bool(self.spent_by)

    def move_end(self, ends_at: datetime, now: datetime) -> None:
        # What has ended stays ended: a later step never revives a value.
        if not self.spent and self.ends_at > now:
            self.ends_at = ends_at


@dataclass(slots=True, kw_only=True, eq=False)
class Lease:
    """One claim of a job; `held` is what the product gave for it."""

    request: Request
    worker: Worker
    attempt: int
    held: Any = None


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    made_at: datetime
    run_after: datetime
    status: str = "queued"
    attempts: int = 0
    lease: Lease | None = None
    lease_ends: datetime | None = None

    def held_at(self, now: datetime) -> bool:
        return self.status == "claimed" and self.lease_ends is not None and self.lease_ends > now

    def lapsed_at(self, now: datetime) -> bool:
        return self.status == "claimed" and not self.held_at(now)

    def runnable_at(self, now: datetime) -> bool:
        if self.lapsed_at(now):
            return self.attempts < ATTEMPTS
        return self.status == "queued" and self.run_after <= now

    def requeue(self, now: datetime, *, reported: bool) -> None:
        # The pause doubles; the specification asks for a pause and names no number. Who reported
        # the failure may repeat it under the same lease (D5).
        self.status, self.lease_ends = "queued", None
        self.lease = self.lease if reported else None
        self.run_after = now + timedelta(seconds=2 ** (self.attempts - 1))
