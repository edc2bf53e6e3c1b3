"""Refusals of administration: people, roles, grants, teams, projects, workflows and policies."""

from __future__ import annotations

from sb.errors import SbError


class InvalidScopeError(SbError):
    code = "invalid_scope"
    status = 400
    message = "The scope has an unknown key, an empty value or names something that is not there."


class EscalationError(SbError):
    code = "permission_escalation"
    status = 403
    message = "You cannot give a permission that you do not hold at that scope."


class LastAdminError(SbError):
    code = "last_admin"
    status = 409
    message = "This would leave nobody who can administer the installation."


class OutOfScopeTeamError(SbError):
    code = "out_of_scope_team"
    status = 403
    message = "The team is out of your scope."
