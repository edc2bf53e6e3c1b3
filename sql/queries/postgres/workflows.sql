-- name: workflow_lock :one
-- Returns the workflow and lets nobody else change it until the transaction ends, or no row.
-- The row lock serialises changes and never waits for requests that name the workflow.
SELECT id, name, description, min_approvers, auto_approve, approver_role_id,
       wrap_ttl_created_seconds, wrap_ttl_approved_seconds, wrap_ttl_claimed_seconds,
       request_ttl_seconds, fill_ttl_seconds, require_justification, allow_self_approval,
       requires_security_approval, scoped_policy_authorable, notification_channels, is_default,
       enabled, is_system, created_at, updated_at
FROM workflow_definitions
WHERE id = :id
FOR NO KEY UPDATE;

-- name: workflow_lock_for_delete :one
-- Returns the workflow and keeps even new requests from naming it until the transaction ends.
-- The strongest row lock: what names the workflow is counted only when it is held.
SELECT id, name, is_default, is_system FROM workflow_definitions WHERE id = :id FOR UPDATE;

-- name: workflow_lock_default :many
-- Returns the default workflow besides this one, holding both in one order.
-- Two people who switch the default at once take turns here.
SELECT id, name, is_default FROM workflow_definitions
WHERE is_default OR id = :id
ORDER BY id
LIMIT 2
FOR NO KEY UPDATE;

-- name: workflow_find_role :one
-- Returns what the role a workflow is to ask may do and keeps it from being deleted, or no row.
-- Whoever deletes a role holds it first, so one of the two sees the other; SQLite has one writer.
SELECT id, permissions FROM roles WHERE id = :id FOR KEY SHARE;
