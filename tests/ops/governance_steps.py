"""What people try: the operation, whether the model refuses it and how, and what it changes.

Everybody passes the door of a route first, as the product's own declaration has it; `ANYWHERE` and
`UNSCOPED` are what the model thinks of these doors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sb.errors import PermissionDeniedError, SbError
from tests.ops.governance_model import Model, Person

Refusal = type[SbError] | None

#: What a person must hold somewhere, or unscoped, to be let in at all.
ANYWHERE = {
    "POST /teams": "team.edit",
    "PUT /teams/<id:team_id>": "team.edit",
    "PUT /teams/<id:team_id>/status": "team.edit",
    "DELETE /teams/<id:team_id>": "team.edit",
    "POST /teams/<id:team_id>/members": "team.edit",
    "DELETE /teams/<id:team_id>/members/<id:user_id>": "team.edit",
    "POST /projects": "project.edit",
    "PUT /projects/<id:project_id>": "project.edit",
    "PUT /projects/<id:project_id>/status": "project.edit",
    "PUT /projects/<id:project_id>/team": "project.edit",
    "POST /environments": "environment.edit",
    "DELETE /environments/<id:environment_id>": "environment.edit",
    "POST /projects/<id:project_id>/secrets": "secret.bind",
    "DELETE /projects/<id:project_id>/secrets/<id:secret_id>": "secret.bind",
    "POST /user-roles": "user_role.edit",
    "PUT /user-roles/<id:grant_id>": "user_role.edit",
    "DELETE /user-roles/<id:grant_id>": "user_role.edit",
    "POST /requests/read": "secret.request",
}
UNSCOPED = {
    "POST /users": "user_role.edit",
    "POST /users/<id:user_id>/disable": "user_role.edit",
    "POST /users/<id:user_id>/enable": "user_role.edit",
    "PUT /roles/<id:role_id>/permissions": "role.edit",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One try of one person; `then` is told what the operation returned."""

    who: Person
    route: str
    op: Callable[..., Any]
    args: Mapping[str, Any]
    refusal: Refusal
    then: Callable[[Any], None]

    @property
    def name(self) -> str:
        return f"{self.op.__module__.removeprefix('sb.ops.')}.{self.op.__name__}"


@dataclass
class Steps:
    """Builds steps for one model."""

    model: Model

    def _step(
        self,
        who: Person,
        route: str,
        op: Callable[..., Any],
        refusal: Callable[[], Refusal],
        then: Callable[[Any], Any],
        **args: Any,
    ) -> Step:
        away = self._kept_out(who, route)
        return Step(who=who, route=route, op=op, args=args, refusal=away or refusal(), then=then)

    def _kept_out(self, who: Person, route: str) -> Refusal:
        if route in ANYWHERE and not self.model.carrying(who, (ANYWHERE[route],)):
            return PermissionDeniedError
        if route in UNSCOPED and not self.model.may(who, UNSCOPED[route], {}):
            return PermissionDeniedError
        return None

    @staticmethod
    def _forget(found: list[Any], one: Any) -> Callable[[Any], None]:
        return lambda _: found.remove(one)


def first(*refusals: Callable[[], Refusal]) -> Refusal:
    """Return the first refusal there is; what comes after it is not asked."""
    return next((found for found in (refusal() for refusal in refusals) if found), None)
