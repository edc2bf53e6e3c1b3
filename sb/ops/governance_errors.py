"""Refusals of administration: people, roles, grants, teams, projects, workflows and policies."""

from __future__ import annotations

from sb.errors import SbError


class InvalidScopeError(SbError):
    code = "invalid_scope"
    status = 400
    message = "The scope has a bad key or value, names what is not there, or excludes itself."


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


class EmailTakenError(SbError):
    code = "email_taken"
    status = 409
    message = "Another account has this address already."


class InvalidEmailError(SbError):
    code = "invalid_email"
    status = 400
    message = "This address cannot be stored in lower case."


class OwnAccountError(SbError):
    code = "own_account"
    status = 403
    message = "Somebody else has to do this to your account; your password you change yourself."


class SessionNotFoundError(SbError):
    code = "session_not_found"
    status = 404
    message = "There is no such live session."


class WorkflowNotFoundError(SbError):
    code = "workflow_not_found"
    status = 404
    message = "There is no such workflow."


class WorkflowNameTakenError(SbError):
    code = "workflow_name_taken"
    status = 409
    message = "A workflow has this name already."


class WorkflowInUseError(SbError):
    code = "workflow_in_use"
    status = 409
    message = "Rules or requests name this workflow; point its rules to another one first."


class DefaultWorkflowRequiredError(SbError):
    code = "default_workflow_required"
    status = 409
    message = (
        "There is always one enabled default workflow that asks somebody; choose another first."
    )


class DefaultWorkflowChangedError(SbError):
    code = "default_workflow_changed"
    status = 409
    message = "Another workflow became the default at this moment; try again."


class SystemRowError(SbError):
    code = "system_row"
    status = 409
    message = "What the system itself needs cannot be deleted; edit it instead."


class RulesChangedError(SbError):
    code = "rules_changed"
    status = 409
    message = "The rule or its workflow was changed or deleted at this moment; try again."


class AutoApproveNotPinnedError(SbError):
    code = "auto_approve_needs_non_prod"
    status = 409
    message = "A rule whose workflow asks nobody must pin environment_kind to non_prod."


class DirectRevealNotPinnedError(SbError):
    code = "direct_reveal_needs_non_prod"
    status = 400
    message = "A rule that allows direct reveal must pin environment_kind to non_prod."


class SystemRuleSelectorError(SbError):
    code = "system_rule_selector"
    status = 409
    message = "The system's own rule matches everything; its selector stays empty."


class TeamNotFoundError(SbError):
    code = "team_not_found"
    status = 404
    message = "There is no such team, you may not see it, or it is archived."


class PolicyNotFoundError(SbError):
    code = "policy_not_found"
    status = 404
    message = "There is no such policy rule, or you may not see it."


class OutOfScopePolicyError(SbError):
    code = "out_of_scope_policy"
    status = 403
    message = "You do not write policy rules for this project."


class OutOfScopeTeamPolicyError(SbError):
    code = "out_of_scope_team_policy"
    status = 403
    message = "You do not write policy rules for this team."


class PlatformPolicyNotEditableError(SbError):
    code = "platform_policy_not_editable"
    status = 403
    message = "This rule belongs to the platform; ask somebody who holds policy.edit."


class PolicySelectorMismatchError(SbError):
    code = "policy_selector_mismatch"
    status = 400
    message = "The selector names another project than the rule is for."


class PolicyScopeTooBroadError(SbError):
    code = "policy_scope_too_broad"
    status = 400
    message = "The selector says too little or something unknown; see reason."


class ProdPolicyNotAllowedError(SbError):
    code = "prod_policy_not_allowed_for_scope"
    status = 403
    message = "Rules of projects and teams never govern production environments."


class PolicyPriorityReservedError(SbError):
    code = "policy_priority_reserved"
    status = 400
    message = "The priority is reserved for the platform; stay below cap."


class PolicyEnvironmentError(SbError):
    code = "policy_environment_not_in_project"
    status = 400
    message = "The project has no environment of this id."


class WorkflowNotAuthorableError(SbError):
    code = "workflow_not_authorable_for_scope"
    status = 403
    message = "The workflow is not open to rules of projects and teams."


class SettingUnavailableError(SbError):
    code = "platform_setting_unavailable"
    status = 503
    message = (
        "A platform setting is missing; an administrator can start the API again to restore it."
    )


class UnknownSettingError(SbError):
    code = "unknown_platform_setting"
    status = 404
    message = "There is no such platform setting."


class InvalidSettingError(SbError):
    code = "invalid_platform_setting"
    status = 400
    message = "The value must be a whole number between min and max."


class RoleNotFoundError(SbError):
    code = "role_not_found"
    status = 404
    message = "There is no such role, or you may not see it."


class RoleNameTakenError(SbError):
    code = "role_name_taken"
    status = 409
    message = "A role has this name already."


class RoleInUseError(SbError):
    code = "role_in_use"
    status = 409
    message = "Grants, workflows or open requests name this role; see used_by."


class SystemRoleNameError(SbError):
    code = "system_role_name"
    status = 409
    message = "A role that every installation starts with keeps its name."


class UnknownPermissionError(SbError):
    code = "unknown_permission"
    status = 400
    message = "The role names permissions that are not in the catalogue; see unknown."


class GrantNotFoundError(SbError):
    code = "grant_not_found"
    status = 404
    message = "There is no such grant, or you may not see it."


class GrantExistsError(SbError):
    code = "grant_exists"
    status = 409
    message = "The person holds this role at this scope already."


class TooManyGrantsError(SbError):
    code = "too_many_grants"
    status = 409
    message = "The person holds 200 grants, which is the most; take back some of them first."


class GrantEndedError(SbError):
    code = "grant_ended"
    status = 409
    message = "The grant has ended and stays so; make a new one."


class GranteeDisabledError(SbError):
    code = "user_disabled"
    status = 400
    message = "The account is disabled; enable it before giving it a role."


class ExportAmbiguousError(SbError):
    code = "export_ambiguous"
    status = 409
    message = "Rules of one name at one place cannot be told apart in a document; rename them."
