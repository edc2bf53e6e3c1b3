-- name: workflow_find :one
-- Returns the workflow with this id, or no row.
SELECT id, name, description, min_approvers, auto_approve, approver_role_id,
       wrap_ttl_created_seconds, wrap_ttl_approved_seconds, wrap_ttl_claimed_seconds,
       request_ttl_seconds, fill_ttl_seconds, require_justification, allow_self_approval,
       requires_security_approval, scoped_policy_authorable, notification_channels, is_default,
       enabled, is_system, created_at, updated_at
FROM workflow_definitions
WHERE id = :id;

-- name: workflow_find_default :one
-- Returns the enabled default workflow, or no row.
SELECT id, name, description, min_approvers, auto_approve, approver_role_id,
       wrap_ttl_created_seconds, wrap_ttl_approved_seconds, wrap_ttl_claimed_seconds,
       request_ttl_seconds, fill_ttl_seconds, require_justification, allow_self_approval,
       requires_security_approval, scoped_policy_authorable, notification_channels, is_default,
       enabled, is_system, created_at, updated_at
FROM workflow_definitions
WHERE is_default AND enabled;

-- name: workflow_lock :one
-- Returns the workflow and lets nobody else change it until the transaction ends, or no row.
-- SQLite has one writer at a time, so the transaction itself is the lock.
SELECT id, name, description, min_approvers, auto_approve, approver_role_id,
       wrap_ttl_created_seconds, wrap_ttl_approved_seconds, wrap_ttl_claimed_seconds,
       request_ttl_seconds, fill_ttl_seconds, require_justification, allow_self_approval,
       requires_security_approval, scoped_policy_authorable, notification_channels, is_default,
       enabled, is_system, created_at, updated_at
FROM workflow_definitions
WHERE id = :id;

-- name: workflow_lock_for_delete :one
-- Returns the workflow and keeps even new requests from naming it until the transaction ends.
-- SQLite has one writer at a time, so the transaction itself is the lock.
SELECT id, name, is_default, is_system FROM workflow_definitions WHERE id = :id;

-- name: workflow_lock_default :many
-- Returns the default workflow besides this one, holding both in one order.
-- SQLite has one writer at a time, so the transaction itself is the lock.
SELECT id, name, is_default FROM workflow_definitions
WHERE is_default OR id = :id
ORDER BY id
LIMIT 2;

-- name: workflow_list :many
-- Returns a page of workflows, newest first.
SELECT id, name, description, min_approvers, auto_approve, approver_role_id,
       wrap_ttl_created_seconds, wrap_ttl_approved_seconds, wrap_ttl_claimed_seconds,
       request_ttl_seconds, fill_ttl_seconds, require_justification, allow_self_approval,
       requires_security_approval, scoped_policy_authorable, notification_channels, is_default,
       enabled, is_system, created_at, updated_at
FROM workflow_definitions
WHERE :before_at IS NULL OR (created_at, id) < (:before_at, :before_id)
ORDER BY created_at DESC, id DESC
LIMIT :limit;

-- name: workflow_list_authorable :many
-- Returns a page of the enabled workflows that scoped authors may use, newest first.
SELECT id, name, description, min_approvers, auto_approve, approver_role_id,
       wrap_ttl_created_seconds, wrap_ttl_approved_seconds, wrap_ttl_claimed_seconds,
       request_ttl_seconds, fill_ttl_seconds, require_justification, allow_self_approval,
       requires_security_approval, scoped_policy_authorable, notification_channels, is_default,
       enabled, is_system, created_at, updated_at
FROM workflow_definitions
WHERE enabled AND scoped_policy_authorable
  AND (:before_at IS NULL OR (created_at, id) < (:before_at, :before_id))
ORDER BY created_at DESC, id DESC
LIMIT :limit;

-- name: workflow_insert :count
-- Creates a workflow unless one of this name is there.
INSERT INTO workflow_definitions (id, name, description, min_approvers, auto_approve,
    approver_role_id, wrap_ttl_created_seconds, wrap_ttl_approved_seconds, wrap_ttl_claimed_seconds,
    request_ttl_seconds, fill_ttl_seconds, require_justification, allow_self_approval,
    requires_security_approval, scoped_policy_authorable, notification_channels, is_default,
    enabled, is_system, created_at, updated_at)
VALUES (:id, :name, :description, :min_approvers, :auto_approve, :approver_role_id,
    :wrap_ttl_created_seconds, :wrap_ttl_approved_seconds, :wrap_ttl_claimed_seconds,
    :request_ttl_seconds, :fill_ttl_seconds, :require_justification, :allow_self_approval,
    :requires_security_approval, :scoped_policy_authorable, :notification_channels, :is_default,
    :enabled, :is_system, :now, :now)
ON CONFLICT (name) DO NOTHING;

-- name: workflow_update :count
-- Replaces every knob of a workflow; 0 when it is gone.
UPDATE workflow_definitions
SET name = :name, description = :description, min_approvers = :min_approvers,
    auto_approve = :auto_approve, approver_role_id = :approver_role_id,
    wrap_ttl_created_seconds = :wrap_ttl_created_seconds,
    wrap_ttl_approved_seconds = :wrap_ttl_approved_seconds,
    wrap_ttl_claimed_seconds = :wrap_ttl_claimed_seconds,
    request_ttl_seconds = :request_ttl_seconds, fill_ttl_seconds = :fill_ttl_seconds,
    require_justification = :require_justification, allow_self_approval = :allow_self_approval,
    requires_security_approval = :requires_security_approval,
    scoped_policy_authorable = :scoped_policy_authorable,
    notification_channels = :notification_channels, is_default = :is_default, enabled = :enabled,
    updated_at = :now
WHERE id = :id;

-- name: workflow_unset_default :count
-- Takes the default away from this workflow; 0 when it has not got it.
UPDATE workflow_definitions SET is_default = :is_default, updated_at = :now
WHERE id = :id AND is_default;

-- name: workflow_count_uses :one
-- Returns how many rules and requests name a workflow.
SELECT (SELECT count(*) FROM policy_rules WHERE workflow_id = :id) AS rules,
       (SELECT count(*) FROM access_requests WHERE workflow_id = :id) AS requests;

-- name: workflow_delete :count
-- Removes a workflow that is neither the system's own nor the default.
DELETE FROM workflow_definitions WHERE id = :id AND NOT is_system AND NOT is_default;

-- name: workflow_find_role :one
-- Returns what the role a workflow is to ask may do and keeps it from being deleted, or no row.
SELECT id, permissions FROM roles WHERE id = :id;
