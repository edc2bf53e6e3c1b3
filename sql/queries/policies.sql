-- name: policy_list_candidates :many
-- Returns every enabled rule that could govern a request of this project, first winner first:
-- priority, then project before team before platform, the nearest team, then age.
WITH RECURSIVE lineage (team_id, distance) AS (
  SELECT p.team_id, 0 FROM projects AS p WHERE p.id = :project_id AND p.team_id IS NOT NULL
  UNION
  SELECT t.parent_team_id, l.distance + 1
  FROM lineage AS l
  JOIN teams AS t ON t.id = l.team_id
  WHERE t.parent_team_id IS NOT NULL AND l.distance < 100
)
SELECT r.id, r.name, r.selector, r.workflow_id, r.priority, r.direct_reveal_allowed,
       r.requires_mfa, r.reveal_ttl_seconds
FROM policy_rules AS r
JOIN workflow_definitions AS w ON w.id = r.workflow_id AND w.enabled
LEFT JOIN lineage AS l ON l.team_id = r.team_id
WHERE r.enabled
  AND (r.project_id IS NULL OR r.project_id = :project_id)
  AND (r.team_id IS NULL OR l.team_id IS NOT NULL)
ORDER BY r.priority DESC,
         CASE WHEN r.project_id IS NOT NULL THEN 0 WHEN r.team_id IS NOT NULL THEN 1 ELSE 2 END,
         coalesce(l.distance, 0), r.created_at, r.id
LIMIT 10000;

-- name: policy_insert :count
-- Creates a rule.
INSERT INTO policy_rules (id, name, selector, workflow_id, priority, enabled, is_system,
                          direct_reveal_allowed, requires_mfa, reveal_ttl_seconds, project_id,
                          team_id, created_at, updated_at)
VALUES (:id, :name, :selector, :workflow_id, :priority, :enabled, :is_system,
        :direct_reveal_allowed, :requires_mfa, :reveal_ttl_seconds, :project_id, :team_id,
        :now, :now);

-- name: policy_any_system :scalar
-- Returns 1 when the system's own rule is there.
SELECT 1 FROM policy_rules WHERE is_system LIMIT 1;

-- name: workflow_find :one
-- Returns the workflow with this id, or no row.
SELECT id, name, min_approvers, auto_approve, approver_role_id, wrap_ttl_created_seconds,
       wrap_ttl_approved_seconds, wrap_ttl_claimed_seconds, request_ttl_seconds,
       require_justification, allow_self_approval, requires_security_approval, enabled
FROM workflow_definitions
WHERE id = :id;

-- name: workflow_find_default :one
-- Returns the enabled default workflow, or no row.
SELECT id, name, min_approvers, auto_approve, approver_role_id, wrap_ttl_created_seconds,
       wrap_ttl_approved_seconds, wrap_ttl_claimed_seconds, request_ttl_seconds,
       require_justification, allow_self_approval, requires_security_approval, enabled
FROM workflow_definitions
WHERE is_default AND enabled;

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
