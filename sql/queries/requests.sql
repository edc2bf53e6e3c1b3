-- name: request_find :one
-- Returns the request with what decides who may see it, or no row.
SELECT r.id, r.requester_id, r.type, r.justification, r.status, r.workflow_id,
       r.matched_policy_rule_id, r.project_id, r.environment_id, r.secret_id,
       r.provider_connection_id, r.cluster_name, r.target_provider_type, r.target_provider_config,
       r.target_secret_ref, r.target_keys, r.target_scope, r.snap_min_approvers,
       r.snap_allow_self_approval, r.snap_approver_role_id, r.snap_wrap_ttl_created_seconds,
       r.snap_wrap_ttl_approved_seconds, r.snap_wrap_ttl_claimed_seconds, r.reject_reason,
       r.failure_reason, r.job_id, r.expires_at, r.execute_before_at, r.decided_at, r.finished_at,
       r.created_at, r.updated_at, p.team_id, u.email AS requester_email,
       u.display_name AS requester_name,
       (SELECT count(*) FROM approvals AS v
        WHERE v.request_id = r.id AND v.decision = 'approve') AS approvals_count,
       (SELECT max(w.expires_at) FROM secret_wraps AS w
        WHERE w.request_id = r.id AND w.consumed_at IS NULL) AS unspent_until
FROM access_requests AS r
JOIN local_users AS u ON u.id = r.requester_id
LEFT JOIN projects AS p ON p.id = r.project_id
WHERE r.id = :id;

-- name: request_show :one
-- Returns one request as people are shown it: what is decided on, and the names of where it stands.
SELECT r.id, r.requester_id, r.type, r.justification, r.status, r.workflow_id,
       r.matched_policy_rule_id, r.project_id, r.environment_id, r.secret_id,
       r.provider_connection_id, r.cluster_name, r.target_provider_type, r.target_provider_config,
       r.target_secret_ref, r.target_keys, r.target_scope, r.snap_min_approvers,
       r.snap_allow_self_approval, r.snap_approver_role_id, r.snap_wrap_ttl_created_seconds,
       r.snap_wrap_ttl_approved_seconds, r.snap_wrap_ttl_claimed_seconds, r.reject_reason,
       r.failure_reason, r.job_id, r.expires_at, r.execute_before_at, r.decided_at, r.finished_at,
       r.created_at, r.updated_at, p.team_id, p.name AS project_name, e.name AS environment_name,
       r.snap_environment_kind AS environment_kind, k.name AS workflow_name, u.email AS requester_email,
       u.display_name AS requester_name,
       (SELECT count(*) FROM approvals AS v
        WHERE v.request_id = r.id AND v.decision = 'approve') AS approvals_count,
       (SELECT max(w.expires_at) FROM secret_wraps AS w
        WHERE w.request_id = r.id AND w.consumed_at IS NULL) AS unspent_until
FROM access_requests AS r
JOIN local_users AS u ON u.id = r.requester_id
JOIN workflow_definitions AS k ON k.id = r.workflow_id
LEFT JOIN projects AS p ON p.id = r.project_id
LEFT JOIN environments AS e ON e.id = r.environment_id
WHERE r.id = :id;

-- name: request_insert :count
-- Creates a request with the workflow's facts as they are at this moment.
INSERT INTO access_requests (id, requester_id, type, justification, status, workflow_id,
    matched_policy_rule_id, project_id, environment_id, secret_id, provider_connection_id,
    cluster_name, target_provider_type, target_provider_config, target_secret_ref, target_keys,
    target_scope, snap_min_approvers, snap_allow_self_approval, snap_approver_role_id,
    snap_requires_security_approval, snap_wrap_ttl_created_seconds, snap_wrap_ttl_approved_seconds,
    snap_wrap_ttl_claimed_seconds, snap_request_ttl_seconds, snap_environment_kind, expires_at,
    created_at, updated_at)
VALUES (:id, :requester_id, :type, :justification, 'pending', :workflow_id,
    :matched_policy_rule_id, :project_id, :environment_id, :secret_id, :provider_connection_id,
    :cluster_name, :target_provider_type, :target_provider_config, :target_secret_ref, :target_keys,
    :target_scope, :snap_min_approvers, :snap_allow_self_approval, :snap_approver_role_id,
    :snap_requires_security_approval, :snap_wrap_ttl_created_seconds,
    :snap_wrap_ttl_approved_seconds, :snap_wrap_ttl_claimed_seconds, :snap_request_ttl_seconds,
    :snap_environment_kind, :expires_at, :now, :now);

-- name: request_approve :count
-- Moves a pending, unexpired request to approved; 0 when it is not pending any more.
UPDATE access_requests
SET status = 'approved', job_id = :job_id, execute_before_at = :execute_before_at,
    decided_at = :now, updated_at = :now
WHERE id = :id AND status = 'pending' AND expires_at > :now;

-- name: request_reject :count
-- Moves a pending request to rejected; 0 when it is not pending any more.
UPDATE access_requests
SET status = 'rejected', reject_reason = :reject_reason, decided_at = :now, finished_at = :now,
    updated_at = :now
WHERE id = :id AND status = 'pending';

-- name: request_cancel :count
-- Moves a pending request to cancelled; 0 when it is not pending any more.
UPDATE access_requests
SET status = 'cancelled', finished_at = :now, updated_at = :now
WHERE id = :id AND status = 'pending';

-- name: request_finish :count
-- Moves an approved request to executed or failed; 0 when it is not approved any more.
UPDATE access_requests
SET status = :status, failure_reason = :failure_reason, finished_at = :now, updated_at = :now
WHERE id = :id AND status = 'approved';

-- name: request_expire :count
-- Moves a request from the given open status to expired; 0 when it has left it.
UPDATE access_requests
SET status = 'expired', failure_reason = :failure_reason, finished_at = :now, updated_at = :now
WHERE id = :id AND status = :expected_status;

-- name: request_count_open :many
-- Returns how many requests are not over, by type and status.
SELECT type, status, count(*) AS requests
FROM access_requests
WHERE status IN ('pending', 'approved')
GROUP BY type, status
LIMIT 100;

-- name: request_list_latest :many
-- Returns the newest requests with the facts that rules look at and what people know them by.
SELECT r.id, r.requester_id, r.type, r.status, r.workflow_id, r.matched_policy_rule_id,
       r.snap_min_approvers, r.project_id, r.environment_id,
       r.target_provider_type, r.target_provider_config,
       r.target_secret_ref, r.cluster_name, r.created_at, e.name AS environment_name,
       r.snap_environment_kind AS environment_kind, p.name AS project_name, p.team_id,
       u.email AS requester_email
FROM access_requests AS r
JOIN local_users AS u ON u.id = r.requester_id
LEFT JOIN projects AS p ON p.id = r.project_id
LEFT JOIN environments AS e ON e.id = r.environment_id
ORDER BY r.created_at DESC, r.id DESC
LIMIT :limit;
