"""Refusals of the operations: what was wrong, with what, and what to do."""

from __future__ import annotations

from sb.errors import SbError
from sb.ops import governance_errors, tenancy_errors
from sb.ops.governance_errors import EmailTakenError, InvalidEmailError


class InvalidCredentialsError(SbError):
    code = "invalid_credentials"
    status = 401
    message = "Invalid credentials."


class WrongPasswordError(SbError):
    code = "wrong_password"
    status = 403
    message = "The current password is not right. Nothing was changed."


class UserNotFoundError(SbError):
    code = "user_not_found"
    status = 404
    message = "There is no such user."


class AgentAuthRejectedError(SbError):
    code = "agent_auth_rejected"
    status = 401
    message = "Agent authentication rejected."


class RequestNotFoundError(SbError):
    code = "request_not_found"
    status = 404
    message = "There is no such request, or you may not see it."


class RequestNotPendingError(SbError):
    code = "request_not_pending"
    status = 409
    message = "The request is not pending any more."


class SelfApprovalForbiddenError(SbError):
    code = "self_approval_forbidden"
    status = 403
    message = "The requester cannot decide on their own request; ask someone else."


class RequesterLostRightError(SbError):
    code = "requester_lost_right"
    status = 409
    message = "The person who asked may not ask for this any more."


class AlreadyVotedError(SbError):
    code = "already_voted"
    status = 409
    message = "You have already voted on this request."


class NotTheRequesterError(SbError):
    code = "not_the_requester"
    status = 403
    message = "Only the original requester can do this."


class ApproverRoleRequiredError(SbError):
    code = "approver_role_required"
    status = 403
    message = "This request's workflow asks for an approver role that you do not hold here."


class OutOfScopeProjectError(SbError):
    code = "out_of_scope_project"
    status = 403
    message = "The project, or the secret in it, is outside your scope."


class OutOfScopeOpError(SbError):
    code = "out_of_scope_op"
    status = 403
    message = "The secret's binding does not allow this operation."


class OutOfScopeKeyError(SbError):
    code = "out_of_scope_key"
    status = 403
    message = "The secret's binding does not allow one of these keys, or needs keys to be named."


class EnvironmentRequiredError(SbError):
    code = "environment_required"
    status = 400
    message = "The project has a production environment: say which environment is meant."


class EnvironmentNotInProjectError(SbError):
    code = "environment_not_in_project"
    status = 400
    message = "The project has no environment of this name."


class ProviderConnectionRequiredError(SbError):
    code = "provider_connection_required"
    status = 400
    message = "Several provider connections have this type: name one in provider_connection_id."


class ConnectionNotFoundError(SbError):
    code = "connection_not_found"
    status = 404
    message = "There is no such provider connection."


class ConnectionDisabledError(SbError):
    code = "connection_disabled"
    status = 409
    message = "The provider connection is disabled."


class ConnectionNameTakenError(SbError):
    code = "connection_name_taken"
    status = 409
    message = "A provider connection has this name already."


class ProviderTypeMismatchError(SbError):
    code = "provider_type_mismatch"
    status = 400
    message = "The provider type is not the provider connection's type."


class CredentialInConfigError(SbError):
    code = "credential_in_config"
    status = 400
    message = "Credentials never travel through a request: the agent uses its own."


class UnknownConfigKeyError(SbError):
    code = "unknown_config_key"
    status = 400
    message = "target_provider_config may hold routing keys of this provider type only."


class AutoApprovalForbiddenError(SbError):
    code = "auto_approval_forbidden"
    status = 409
    message = "The matched workflow approves without anyone, which production does not allow."


class NoWorkflowError(SbError):
    code = "no_workflow"
    status = 500
    message = "No policy matched and there is no default workflow. Ask an administrator."


class WrapNotFoundError(SbError):
    code = "wrap_not_found"
    status = 404
    message = "There is no such wrap."


class WrapConsumedError(SbError):
    code = "wrap_already_consumed"
    status = 410
    message = "The value was revealed already. Submit a new request to see it again."


class WrapExpiredError(SbError):
    code = "wrap_expired"
    status = 410
    message = "The wrap has expired. Submit a new request."


class RequestNotRetrievableError(SbError):
    code = "request_not_retrievable"
    status = 409
    message = "The request is not in a state in which values can be retrieved."


class RequestNotApprovedError(SbError):
    code = "request_not_approved"
    status = 409
    message = "The owning request is not approved."


class ReadRequestsOnlyError(SbError):
    code = "read_requests_only"
    status = 400
    message = "Agents create wraps for read requests only."


class ValueTooLargeError(SbError):
    code = "value_too_large"
    status = 400
    message = "A value is larger than 64 KiB."


class TooManyKeysError(SbError):
    code = "too_many_keys"
    status = 400
    message = "The secret has more keys than one request can carry; ask for some of them by name."


class KeyNotRequestedError(SbError):
    code = "key_not_requested"
    status = 403
    message = "This key is not part of the request."


class JobNotFoundError(SbError):
    code = "job_not_found"
    status = 404
    message = "There is no such job."


class LeaseLostError(SbError):
    code = "lease_lost"
    status = 409
    message = "The lease on this job is not yours any more; drop the outcome."


class UnsealedValueError(SbError):
    code = "unsealed_value_refused"
    status = 400
    message = "A public key is registered for this agent, so values travel sealed."


class SealInvalidError(SbError):
    code = "seal_invalid"
    status = 400
    message = "The sealed value cannot be opened with this control plane's key."


class AgentNotFoundError(SbError):
    code = "agent_not_found"
    status = 404
    message = "There is no such agent."


class AgentNameTakenError(SbError):
    code = "agent_name_taken"
    status = 409
    message = "An agent has this name already. The enrolment token was not spent."


class AgentNameRequiredError(SbError):
    code = "agent_name_required"
    status = 400
    message = "agent_name is required."


class InvalidPublicKeyError(SbError):
    code = "invalid_public_key"
    status = 400
    message = "public_key must be 32 bytes of base64 and the algorithm x25519."


class DirectMintDisabledError(SbError):
    code = "direct_agent_mint_disabled"
    status = 403
    message = "Direct minting is off. Use an enrolment token, or set SB_ALLOW_DIRECT_AGENT_MINT."


class EnrollmentTokenInvalidError(SbError):
    code = "enrollment_token_invalid"
    status = 401
    message = "The enrolment token is not valid."


class EnrollmentTokenExpiredError(SbError):
    code = "enrollment_token_expired"
    status = 401
    message = "The enrolment token has expired; ask for a new one."


class EnrollmentTokenRevokedError(SbError):
    code = "enrollment_token_revoked"
    status = 403
    message = "The enrolment token was revoked."


class EnrollmentTokenConsumedError(SbError):
    code = "enrollment_token_already_consumed"
    status = 409
    message = "The enrolment token was used already."


class EnrollmentTokenNotFoundError(SbError):
    code = "enrollment_token_not_found"
    status = 404
    message = "There is no such open enrolment token."


class ConnectionUnavailableError(SbError):
    code = "provider_connection_unavailable"
    status = 409
    message = "The provider connection of this token is gone or disabled."


class ClusterNameMismatchError(SbError):
    code = "cluster_name_mismatch"
    status = 400
    message = "The cluster name is not the one this token was issued for."


class IdempotencyKeyReusedError(SbError):
    code = "idempotency_key_reused"
    status = 409
    message = "This Idempotency-Key was used with a different body."


class IdempotencyKeyUsedError(SbError):
    code = "idempotency_key_used"
    status = 409
    message = "This Idempotency-Key was used; its answer held a secret and is not kept."


#: Named constraints whose violation has a meaning for the caller.
CONSTRAINT_ERRORS: dict[str, type[SbError]] = {
    "approvals_request_approver_key": AlreadyVotedError,
    "agents_name_key": AgentNameTakenError,
    "provider_connections_name_key": ConnectionNameTakenError,
    "teams_child_name_key": tenancy_errors.TeamNameTakenError,
    "teams_root_name_key": tenancy_errors.TeamNameTakenError,
    "projects_name_key": tenancy_errors.ProjectNameTakenError,
    "environments_project_name_key": tenancy_errors.EnvironmentNameTakenError,
    "local_users_email_key": EmailTakenError,
    "local_users_email_form": InvalidEmailError,
    "roles_name_key": governance_errors.RoleNameTakenError,
    "workflow_definitions_name_key": governance_errors.WorkflowNameTakenError,
    "workflow_definitions_default_key": governance_errors.DefaultWorkflowChangedError,
    # What governance deletes is held and counted first; these are for what names it meanwhile.
    "teams_parent_team_id_fkey": tenancy_errors.TeamInUseError,
    "team_members_team_id_fkey": governance_errors.TeamNotFoundError,
    "projects_team_id_fkey": governance_errors.TeamNotFoundError,
    "user_roles_role_id_fkey": governance_errors.RoleInUseError,
    "workflow_definitions_approver_role_id_fkey": governance_errors.RoleInUseError,
    "policy_rules_team_id_fkey": governance_errors.TeamNotFoundError,
    "policy_rules_workflow_id_fkey": governance_errors.RulesChangedError,
    "access_requests_workflow_id_fkey": governance_errors.RulesChangedError,
    "access_requests_matched_policy_rule_id_fkey": governance_errors.RulesChangedError,
}
