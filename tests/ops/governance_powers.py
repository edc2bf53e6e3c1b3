"""Steps with people, roles and grants: who holds what, from whom, and that somebody administers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from sb.errors import PermissionDeniedError
from sb.ops import accounts, grants, roles
from sb.ops import governance_errors as governance
from tests.ops.governance_model import (
    PLACES,
    Grant,
    Person,
    Role,
    Scope,
    Thing,
    covers,
    inside,
    only,
    widest,
)
from tests.ops.governance_steps import Refusal, Step, Steps, first


class PowerSteps(Steps):
    # People.

    def hire(self, who: Person, name: str) -> Step:
        return self._step(
            who,
            "POST /users",
            accounts.register,
            lambda: None,
            lambda found: self.model.people.append(Person(id=found.id, name=name)),
            email=f"{name}@example.com",
            password_hash="x",
            display_name=name,
            must_change_password=False,
        )

    def disable(self, who: Person, whom: Person) -> Step:
        def then(_: Any = None) -> None:
            whom.disabled = True

        def undo() -> None:
            whom.disabled = False

        def refusal() -> Refusal:
            if who is whom:
                return governance.OwnAccountError
            return None if whom.disabled else self._orphans(then, undo)

        route = "POST /users/<id:user_id>/disable"
        return self._step(who, route, accounts.disable, refusal, then, user_id=whom.id)

    def enable(self, who: Person, whom: Person) -> Step:
        def then(_: Any) -> None:
            whom.disabled = False

        route = "POST /users/<id:user_id>/enable"
        return self._step(who, route, accounts.enable, lambda: None, then, user_id=whom.id)

    def _orphans(self, change: Callable[[], None], undo: Callable[[], None]) -> Refusal:
        """Refuse what would leave nobody to administer."""
        change()
        stays = self.model.has_administrator()
        undo()
        return None if stays else governance.LastAdminError

    # Roles.

    def edit_role(self, who: Person, role: Role, permissions: frozenset[str]) -> Step:
        before = role.permissions

        def then(_: Any = None) -> None:
            role.permissions = permissions

        def undo() -> None:
            role.permissions = before

        return self._step(
            who,
            "PUT /roles/<id:role_id>/permissions",
            roles.update,
            lambda: first(
                lambda: self._spreads(who, role, permissions - before),
                lambda: self._orphans(then, undo),
            ),
            then,
            role_id=role.id,
            changes={"permissions": sorted(permissions)},
        )

    def _spreads(self, who: Person, role: Role, added: frozenset[str]) -> Refusal:
        """Whoever adds to a role adds to all of its grants, so they must be theirs to give."""
        given = [g for g in self.model.grants if g.role is role and not g.is_over(self.model.now)]
        refusals = (self._exceeds(who, g.who, added, widest(g.scope), g.ends) for g in given)
        return next((refusal for refusal in refusals if refusal), None)

    def _exceeds(
        self,
        who: Person,
        to: Person,
        permissions: Iterable[str],
        thing: Thing,
        until: datetime | None,
    ) -> Refusal:
        """Nobody passes on more than they hold; an administrator may, to others."""
        if to is not who and self.model.is_root(who):
            return None
        more = self.model.lacks(who, permissions, thing, until)
        return governance.EscalationError if more else None

    # Grants.

    def grant(
        self, who: Person, to: Person, role: Role, scope: Scope, ends: datetime | None
    ) -> Step:
        def same() -> Refusal:
            mine = [g for g in self.model.grants if g.who is to and g.role is role]
            held = any(g.scope == scope and not g.is_over(self.model.now) for g in mine)
            return governance.GrantExistsError if held else None

        def then(found: Any) -> None:
            made = Grant(id=found["id"], who=to, role=role, scope=scope, ends=ends)
            self.model.grants.append(made)

        return self._step(
            who,
            "POST /user-roles",
            grants.create,
            lambda: first(
                lambda: self._out_of_reach(who, scope),
                lambda: governance.GranteeDisabledError if to.disabled else None,
                lambda: self._exceeds(who, to, role.permissions, widest(scope), ends),
                same,
            ),
            then,
            user_id=to.id,
            role_id=role.id,
            scope=ids_of(scope),
            expires_at=ends,
            reason=None,
        )

    def _out_of_reach(self, who: Person, scope: Scope) -> Refusal:
        environment, project = scope.get("environment_id"), scope.get("project_id")
        means_nothing = environment is not None and (
            environment.deleted or project not in (None, environment.project)
        )
        # A project named together with a team that is not above it.
        wide = widest(scope)
        split = "project_id" in wide and not covers(
            only(scope, ("team_id",)), inside(wide["project_id"])
        )
        means_nothing = means_nothing or split
        if self.model.may(who, "user_role.edit", {}):
            return governance.InvalidScopeError if means_nothing else None
        # Elsewhere what is not there and what is somebody else's look the same.
        gives = self.model.gives(who, scope) and not means_nothing
        return None if gives else PermissionDeniedError

    def extend(self, who: Person, grant: Grant, ends: datetime | None) -> Step:
        before = grant.ends

        def then(_: Any = None) -> None:
            grant.ends = ends

        def undo() -> None:
            grant.ends = before

        def refusal() -> Refusal:
            if ends == before:
                return None
            if grant.is_over(self.model.now):
                return governance.GrantEndedError
            longer = before is not None and (ends is None or ends > before)
            wide, held = widest(grant.scope), grant.role.permissions
            more = self._exceeds(who, grant.who, held, wide, ends) if longer else None
            return more or self._orphans(then, undo)

        return self._step(
            who,
            "PUT /user-roles/<id:grant_id>",
            grants.update,
            lambda: first(lambda: self._not_theirs(who, grant), refusal),
            then,
            grant_id=grant.id,
            changes={"expires_at": ends},
        )

    def revoke(self, who: Person, grant: Grant) -> Step:
        found = self.model.grants
        return self._step(
            who,
            "DELETE /user-roles/<id:grant_id>",
            grants.revoke,
            lambda: first(
                lambda: self._not_theirs(who, grant),
                lambda: self._orphans(lambda: found.remove(grant), lambda: found.append(grant)),
            ),
            self._forget(found, grant),
            grant_id=grant.id,
        )

    def _not_theirs(self, who: Person, grant: Grant) -> Refusal:
        if self.model.gives(who, grant.scope):
            return None
        return PermissionDeniedError if grant.who is who else governance.GrantNotFoundError


def ids_of(scope: Scope) -> dict[str, str]:
    return {key: named.id if key in PLACES else named for key, named in scope.items()}
