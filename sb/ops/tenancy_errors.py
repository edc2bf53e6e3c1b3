"""Refusals about teams, projects, environments, secrets and their bindings."""

from __future__ import annotations

from sb.errors import SbError


class TeamNameTakenError(SbError):
    code = "team_name_taken"
    status = 409
    message = "A team at this level has this name already."


class TeamCycleError(SbError):
    code = "team_cycle"
    status = 409
    message = "The new parent stands below this team, or is the team itself."


class TeamTooDeepError(SbError):
    code = "team_too_deep"
    status = 409
    message = "Teams would stand more than 100 levels deep."


class TeamArchivedError(SbError):
    code = "team_archived"
    status = 409
    message = "The team is archived: it takes no new teams and no new projects."


class TeamInUseError(SbError):
    code = "team_in_use"
    status = 409
    message = "Teams, projects, policy rules or grants still name this team."


class AlreadyMemberError(SbError):
    code = "already_member"
    status = 409
    message = "This person is a member of the team already."


class MemberNotFoundError(SbError):
    code = "member_not_found"
    status = 404
    message = "This person is not a member of the team."


class ProjectNotFoundError(SbError):
    code = "project_not_found"
    status = 404
    message = "There is no such project, or you may not see it."


class ProjectNameTakenError(SbError):
    code = "project_name_taken"
    status = 409
    message = "A project has this name already."


class ProjectArchivedError(SbError):
    code = "project_archived"
    status = 409
    message = "The project is archived: nothing new begins in it and nothing open goes on."


class EnvironmentNotFoundError(SbError):
    code = "environment_not_found"
    status = 404
    message = "There is no such environment, or you may not see it."


class EnvironmentNameTakenError(SbError):
    code = "environment_name_taken"
    status = 409
    message = "The project has an environment of this name already."


class EnvironmentInUseError(SbError):
    code = "environment_in_use"
    status = 409
    message = "Bindings or open requests still name this environment."


class EnvironmentKindProtectedError(SbError):
    code = "environment_kind_protected"
    status = 409
    message = "This name stood for production in this project; it cannot come back as less."


class EnvironmentDeletedError(SbError):
    code = "environment_deleted"
    status = 409
    message = "The environment of this request was deleted."


class SecretNotFoundError(SbError):
    code = "secret_not_found"
    status = 404
    message = "There is no such secret, or you may not see it."


class SecretOutOfScopeError(SbError):
    code = "secret_out_of_scope"
    status = 403
    message = "This secret is in use outside your scope; somebody with a wider scope can bind it."


class BindingNotFoundError(SbError):
    code = "binding_not_found"
    status = 404
    message = "The secret is not bound to this project, or you may not see it."


class BindingExistsError(SbError):
    code = "binding_exists"
    status = 409
    message = "The secret is bound to this project already."


class ProductionSecretError(SbError):
    code = "production_secret"
    status = 409
    message = "This secret is production's: ask for it in an environment that is."


class SecretInProductionError(SbError):
    code = "secret_in_production"
    status = 409
    message = "A production environment has this secret: end that binding first."


class BindingRevokedError(SbError):
    code = "binding_revoked"
    status = 409
    message = "The secret is not bound any more as it was when this request was made."
