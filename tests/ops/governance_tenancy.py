"""Steps with teams, projects, environments and bindings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sb.errors import SbError
from sb.ops import bindings, environments, errors, projects, teams
from sb.ops import governance_errors as governance
from sb.ops import tenancy_errors as tenancy
from tests.ops.governance_model import (
    Binding,
    Environment,
    Person,
    Project,
    Scope,
    Secret,
    Team,
    Thing,
    covers,
    inside,
    only,
    widest,
)
from tests.ops.governance_steps import Refusal, Step, Steps, first


class TenancySteps(Steps):
    # Teams.

    def create_team(self, who: Person, parent: Team | None, name: str) -> Step:
        return self._step(
            who,
            "POST /teams",
            teams.create,
            lambda: self._under(who, parent, "team.edit", governance.OutOfScopeTeamError),
            lambda found: self.model.teams.append(Team(id=found["id"], parent=parent)),
            name=name,
            parent_team_id=parent and parent.id,
            description=None,
            status="active",
        )

    def describe_team(self, who: Person, team: Team, text: str) -> Step:
        return self._step(
            who,
            "PUT /teams/<id:team_id>",
            teams.update,
            lambda: self._take_team(who, team),
            lambda _: None,
            team_id=team.id,
            changes={"description": text},
        )

    def move_team(self, who: Person, team: Team, parent: Team | None) -> Step:
        def place() -> Refusal:
            if parent is team.parent:
                return None
            circle = parent is not None and team in parent.line()
            refused = self._under(who, parent, "team.edit", governance.OutOfScopeTeamError)
            if refused or circle:
                return refused or tenancy.TeamCycleError
            return self._gains(who, {"team_id": team}, parent)

        def then(_: Any) -> None:
            team.parent = parent

        return self._step(
            who,
            "PUT /teams/<id:team_id>",
            teams.update,
            lambda: first(lambda: self._take_team(who, team), place),
            then,
            team_id=team.id,
            changes={"parent_team_id": parent and parent.id},
        )

    def set_team_status(self, who: Person, team: Team, status: str) -> Step:
        def then(_: Any) -> None:
            team.status = status

        return self._step(
            who,
            "PUT /teams/<id:team_id>/status",
            teams.set_status,
            lambda: self._take_team(who, team),
            then,
            team_id=team.id,
            status=status,
        )

    def delete_team(self, who: Person, team: Team) -> Step:
        def hung_on() -> Refusal:
            live = [grant for grant in self.model.grants if not grant.is_over(self.model.now)]
            used = (
                any(other.parent is team for other in self.model.teams)
                or any(project.team is team for project in self.model.projects)
                or any(grant.scope.get("team_id") is team for grant in live)
            )
            return tenancy.TeamInUseError if used else None

        def then(_: Any) -> None:
            # It stands below nothing any more: who gave a role there once need not see that.
            self.model.teams.remove(team)
            team.parent = None

        return self._step(
            who,
            "DELETE /teams/<id:team_id>",
            teams.delete,
            lambda: first(lambda: self._take_team(who, team), hung_on),
            then,
            team_id=team.id,
        )

    def join(self, who: Person, team: Team, whom: Person) -> Step:
        refused = tenancy.AlreadyMemberError if whom in team.members else None
        route = "POST /teams/<id:team_id>/members"
        return self._membership(who, team, whom, route, teams.add_member, team.members.add, refused)

    def leave(self, who: Person, team: Team, whom: Person) -> Step:
        refused = None if whom in team.members else tenancy.MemberNotFoundError
        route = "DELETE /teams/<id:team_id>/members/<id:user_id>"
        drop = team.members.discard
        return self._membership(who, team, whom, route, teams.remove_member, drop, refused)

    def _membership(
        self,
        who: Person,
        team: Team,
        whom: Person,
        route: str,
        op: Callable[..., Any],
        then: Callable[[Person], None],
        refused: Refusal,
    ) -> Step:
        return self._step(
            who,
            route,
            op,
            lambda: self._take_team(who, team) or refused,
            lambda _: then(whom),
            team_id=team.id,
            user_id=whom.id,
        )

    def _take_team(self, who: Person, team: Team, permission: str = "team.edit") -> Refusal:
        if not self.model.sees_team(who, team):
            return governance.TeamNotFoundError
        may = self.model.may(who, permission, {"team_id": team})
        return None if may else governance.OutOfScopeTeamError

    def _under(
        self, who: Person, team: Team | None, permission: str, at_the_top: type[SbError]
    ) -> Refusal:
        """Something will stand under the team, or under none: that takes an unscoped grant."""
        if team is None:
            return None if self.model.may(who, permission, {}) else at_the_top
        refused = self._take_team(who, team, permission)
        return refused or (None if team.status == "active" else tenancy.TeamArchivedError)

    def _gains(self, who: Person, moved: Thing, to: Team | None) -> Refusal:
        """Nobody holds more over what they have moved than they held over it before."""
        for grant in self.model.powers(who):
            part = self._part(grant.scope, moved)
            if "team_id" not in grant.scope or part is None:
                continue
            there = covers(grant.scope, part | {"team_id": to})
            if there and self.model.lacks(who, grant.role.permissions, part, grant.ends):
                return governance.EscalationError
        return None

    @staticmethod
    def _part(scope: Scope, moved: Thing) -> Thing | None:
        """Of what is moved, what the scope is about beside its team; None if that is elsewhere."""
        rest = widest({key: named for key, named in scope.items() if key != "team_id"})
        project = rest.get("project_id")
        if project is None:
            return {**moved, "environment_id": None} | rest
        if "project_id" in moved:
            return rest if project is moved["project_id"] else None
        below = project.team is not None and moved["team_id"] in project.team.line()
        return rest if below else None

    # Projects.

    def create_project(self, who: Person, team: Team | None, name: str) -> Step:
        return self._step(
            who,
            "POST /projects",
            projects.create,
            lambda: self._under(who, team, "project.edit", errors.OutOfScopeProjectError),
            lambda found: self.model.projects.append(Project(id=found["id"], team=team)),
            name=name,
            team_id=team and team.id,
            status="active",
        )

    def rename_project(self, who: Person, project: Project, name: str) -> Step:
        return self._step(
            who,
            "PUT /projects/<id:project_id>",
            projects.rename,
            lambda: self._take(who, project, "project.edit"),
            lambda _: None,
            project_id=project.id,
            name=name,
        )

    def move_project(self, who: Person, project: Project, team: Team | None) -> Step:
        def place() -> Refusal:
            if team is project.team:
                return None
            return self._under(who, team, "project.edit", errors.OutOfScopeProjectError)

        def then(_: Any) -> None:
            project.team = team

        return self._step(
            who,
            "PUT /projects/<id:project_id>/team",
            projects.set_team,
            lambda: first(
                lambda: self._find(who, project),
                place,
                lambda: self._take(who, project, "project.edit"),
                lambda: self._gains(who, inside(project), team),
            ),
            then,
            project_id=project.id,
            team_id=team and team.id,
        )

    def set_project_status(self, who: Person, project: Project, status: str) -> Step:
        def then(_: Any) -> None:
            project.status = status

        return self._step(
            who,
            "PUT /projects/<id:project_id>/status",
            projects.set_status,
            lambda: self._take(who, project, "project.edit"),
            then,
            project_id=project.id,
            status=status,
        )

    def _find(self, who: Person, project: Project) -> Refusal:
        return None if self.model.sees_project(who, project) else tenancy.ProjectNotFoundError

    def _take(self, who: Person, project: Project, permission: str) -> Refusal:
        may = self.model.may(who, permission, inside(project))
        return self._find(who, project) or (None if may else errors.OutOfScopeProjectError)

    @staticmethod
    def _closed(project: Project) -> Refusal:
        return None if project.status == "active" else tenancy.ProjectArchivedError

    # Environments.

    def create_environment(self, who: Person, project: Project, name: str, kind: str) -> Step:
        def then(found: Any) -> None:
            made = Environment(id=found["id"], name=name, project=project, kind=kind)
            self.model.is_there(made)

        return self._step(
            who,
            "POST /environments",
            environments.create,
            lambda: first(
                lambda: self._take(who, project, "environment.edit"), lambda: self._closed(project)
            ),
            then,
            project_id=project.id,
            name=name,
            environment_type="other",
            kind=kind,
            risk_level=1,
            description=None,
        )

    def delete_environment(self, who: Person, environment: Environment) -> Step:
        def taken() -> Refusal:
            if not self.model.sees_environment(who, environment):
                return tenancy.EnvironmentNotFoundError
            place = inside(environment.project, environment)
            may = self.model.may(who, "environment.edit", place)
            return None if may else errors.OutOfScopeProjectError

        def rested_on() -> Refusal:
            used = any(
                binding.environment is environment for binding in self.model.bindings
            ) or any(
                request.environment is environment and request.status in ("pending", "approved")
                for request in self.model.requests
            )
            return tenancy.EnvironmentInUseError if used else None

        def then(_: Any) -> None:
            environment.deleted = True

        return self._step(
            who,
            "DELETE /environments/<id:environment_id>",
            environments.delete,
            lambda: first(taken, rested_on),
            then,
            environment_id=environment.id,
        )

    # Bindings.

    def bind(
        self, who: Person, project: Project, secret: Secret, environment: Environment | None
    ) -> Step:
        wanted = Binding(project=project, secret=secret, environment=environment)

        def bound() -> Refusal:
            same = [b for b in self.model.bindings if b.project is project and b.secret is secret]
            return tenancy.BindingExistsError if same else None

        return self._step(
            who,
            "POST /projects/<id:project_id>/secrets",
            bindings.create,
            lambda: first(
                lambda: self._find(who, project),
                lambda: self._reaches_into(who, project),
                lambda: self._closed(project),
                lambda: self._belongs(project, environment),
                lambda: self._finds_secret(who, secret),
                lambda: self._binds(who, wanted, errors.OutOfScopeProjectError),
                lambda: self._not_foreign(who, wanted),
                bound,
            ),
            lambda _: self.model.is_bound(wanted),
            project_id=project.id,
            secret=secret.id,
            limits=bindings.Limits(environment_id=environment and environment.id),
        )

    def unbind(self, who: Person, binding: Binding) -> Step:
        def found() -> Refusal:
            seen = self.model.sees_binding(who, binding)
            return None if seen else tenancy.BindingNotFoundError

        return self._step(
            who,
            "DELETE /projects/<id:project_id>/secrets/<id:secret_id>",
            bindings.delete,
            lambda: first(
                lambda: self._find(who, binding.project),
                found,
                lambda: self._binds(who, binding, errors.OutOfScopeProjectError),
            ),
            self._forget(self.model.bindings, binding),
            project_id=binding.project.id,
            secret_id=binding.secret.id,
        )

    def _reaches_into(self, who: Person, project: Project) -> Refusal:
        """Whoever can bind nothing here learns nothing of any secret."""
        named = ("team_id", "project_id")
        binding = self.model.carrying(who, ("secret.bind",))
        reach = any(covers(only(grant.scope, named), inside(project)) for grant in binding)
        return None if reach else errors.OutOfScopeProjectError

    @staticmethod
    def _belongs(project: Project, environment: Environment | None) -> Refusal:
        if environment is None or (environment.project is project and not environment.deleted):
            return None
        return errors.EnvironmentNotInProjectError

    def _finds_secret(self, who: Person, secret: Secret) -> Refusal:
        seen = self.model.sees_secret(who, secret, ("secret.list", "secret.bind"))
        return None if seen else tenancy.SecretNotFoundError

    def _binds(self, who: Person, binding: Binding, refusal: type[SbError]) -> Refusal:
        return None if self.model.may(who, "secret.bind", binding.thing()) else refusal

    def _not_foreign(self, who: Person, wanted: Binding) -> Refusal:
        """A secret that other projects have is theirs too."""
        same = [b for b in self.model.bindings if b.secret is wanted.secret]
        others = [b for b in same if b.project is not wanted.project]
        refusals = (self._binds(who, other, tenancy.SecretOutOfScopeError) for other in others)
        return next((refusal for refusal in refusals if refusal), None)
