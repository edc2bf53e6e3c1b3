"""Steps with requests: asked for, voted on, taken back."""

from __future__ import annotations

from typing import Any

from sb.errors import InvalidInputError, PermissionDeniedError
from sb.ids import new_id
from sb.ops import approvals, errors, requests, submissions
from sb.ops import tenancy_errors as tenancy
from tests.ops.governance_model import (
    Environment,
    Person,
    Project,
    Request,
    Secret,
    covers,
    inside,
    only,
)
from tests.ops.governance_stage import LIFE
from tests.ops.governance_steps import Refusal, Step, Steps, first


class RequestSteps(Steps):
    def submit(
        self,
        who: Person,
        secret: Secret,
        project: Project | None,
        environment: Environment | None,
    ) -> Step:
        asked = Request(
            id=new_id(),
            requester=who,
            secret=secret,
            project=project,
            environment=environment,
            ends=self.model.now + LIFE,
        )
        draft = submissions.Draft(
            id=asked.id,
            type="read",
            justification="ticket 1",
            target_provider_type=secret.provider,
            target_provider_config={},
            target_secret_ref=secret.ref,
            target_keys=[],
            project_id=project and project.id,
            environment=environment and environment.name,
            provider_connection_id=secret.connection,
        )

        def then(found: Any) -> None:
            asked.kind = self.model.kind_of(asked)
            assert found.row["environment_kind"] == asked.kind
            self.model.requests.append(asked)

        return self._step(
            who,
            "POST /requests/read",
            submissions.submit,
            lambda: self._unasked(asked, project),
            then,
            draft=draft,
            new_wraps=[],
        )

    def _unasked(self, asked: Request, project: Project | None) -> Refusal:
        who, out = asked.requester, errors.OutOfScopeProjectError
        if project is None:
            return None if self.model.may(who, "secret.request", {}) else InvalidInputError
        elsewhere = asked.environment is not None and (
            asked.environment.deleted or asked.environment.project is not project
        )
        production = self.model.has_production(project)
        required = production and not asked.environment
        return first(
            lambda: None if self._reaches(who, project) and project.status == "active" else out,
            lambda: errors.EnvironmentNotInProjectError if elsewhere else None,
            lambda: errors.EnvironmentRequiredError if required else None,
            lambda: None if self._stands(asked) else out,
            lambda: None if self.model.may(who, "secret.request", asked.thing()) else out,
            lambda: self._sticks(asked),
        )

    def _sticks(self, asked: Request) -> Refusal:
        """Production's secret is asked for in production, or without a project."""
        weaker = asked.environment is None or asked.environment.kind != "prod"
        sticks = weaker and self.model.kind_of(asked) == "prod"
        return tenancy.ProductionSecretError if sticks else None

    def _reaches(self, who: Person, project: Project) -> bool:
        """Whoever can ask for nothing here learns nothing of its environments."""
        named = ("team_id", "project_id")
        asking = self.model.carrying(who, ("secret.request",))
        return any(covers(only(grant.scope, named), inside(project)) for grant in asking)

    def _stands(self, request: Request) -> bool:
        """Tell whether the project has a binding to the secret for the request's environment."""
        return any(
            (binding.project, binding.secret) == (request.project, request.secret)
            and binding.environment in (None, request.environment)
            for binding in self.model.bindings
        )

    def approve(self, who: Person, request: Request) -> Step:
        def then(_: Any) -> None:
            request.votes[who] = "approve"
            if len(self.model.counting(request)) >= request.secret.flow.quorum:
                request.status = "approved"

        return self._step(
            who,
            "POST /requests/<id:request_id>/approve",
            approvals.approve,
            lambda: first(
                lambda: self._undecidable(who, request), lambda: self._withdrawn(request)
            ),
            then,
            request_id=request.id,
            comment=None,
        )

    def reject(self, who: Person, request: Request) -> Step:
        def then(_: Any) -> None:
            request.votes[who], request.status = "reject", "rejected"

        return self._step(
            who,
            "POST /requests/<id:request_id>/reject",
            approvals.reject,
            lambda: self._undecidable(who, request),
            then,
            request_id=request.id,
            reason="no",
        )

    def cancel(self, who: Person, request: Request) -> Step:
        def refusal() -> Refusal:
            if not self.model.sees_request(who, request):
                return errors.RequestNotFoundError
            if who is not request.requester:
                return errors.NotTheRequesterError
            return None if request.status == "pending" else errors.RequestNotPendingError

        def then(_: Any) -> None:
            request.status = "cancelled"

        route = "POST /requests/<id:request_id>/cancel"
        return self._step(who, route, requests.cancel, refusal, then, request_id=request.id)

    def _undecidable(self, who: Person, request: Request) -> Refusal:
        if not self.model.sees_request(who, request):
            return errors.RequestNotFoundError
        if not request.open_at(self.model.now):
            return errors.RequestNotPendingError
        if who is request.requester and not request.secret.flow.own_vote:
            return errors.SelfApprovalForbiddenError
        if not self.model.may(who, "secret.approve", request.thing()):
            free = request.project is None
            return PermissionDeniedError if free else errors.OutOfScopeProjectError
        if not self.model.has_role_for(who, request):
            return errors.ApproverRoleRequiredError
        return errors.AlreadyVotedError if who in request.votes else None

    def _withdrawn(self, request: Request) -> Refusal:
        """Nothing is approved on ground that is gone, nor for who could not ask for it now."""
        if request.project is not None and request.project.status != "active":
            return tenancy.ProjectArchivedError
        if request.project is not None and not self._stands(request):
            return tenancy.BindingRevokedError
        asks = self.model.may(request.requester, "secret.request", request.thing())
        if not asks:
            return errors.RequesterLostRightError
        became = request.kind != "prod" and request.secret in self.model.production
        return tenancy.ProductionSecretError if became else None
