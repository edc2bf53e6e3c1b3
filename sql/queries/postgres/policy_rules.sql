-- name: policy_lock :one
-- Returns the rule and lets nobody else change it until the transaction ends, or no row.
-- The row lock serialises changes; SQLite has one writer and needs none.
SELECT r.id, r.name, r.selector, r.workflow_id, r.priority, r.enabled, r.is_system,
       r.direct_reveal_allowed, r.requires_mfa, r.reveal_ttl_seconds, r.project_id, r.team_id,
       r.created_at, r.updated_at
FROM policy_rules AS r
WHERE r.id = :id
FOR UPDATE;
