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

-- name: policy_find :one
-- Returns the rule with this id, whatever its anchor, or no row.
SELECT r.id, r.name, r.selector, r.workflow_id, r.priority, r.enabled, r.is_system,
       r.direct_reveal_allowed, r.requires_mfa, r.reveal_ttl_seconds, r.project_id, r.team_id,
       r.created_at, r.updated_at
FROM policy_rules AS r
WHERE r.id = :id;

-- name: policy_lock :one
-- Returns the rule and lets nobody else change it until the transaction ends, or no row.
-- SQLite has one writer at a time, so the transaction itself is the lock.
SELECT r.id, r.name, r.selector, r.workflow_id, r.priority, r.enabled, r.is_system,
       r.direct_reveal_allowed, r.requires_mfa, r.reveal_ttl_seconds, r.project_id, r.team_id,
       r.created_at, r.updated_at
FROM policy_rules AS r
WHERE r.id = :id;

-- name: policy_update :count
-- Replaces everything about a rule but its anchor; 0 when it is gone.
UPDATE policy_rules
SET name = :name, selector = :selector, workflow_id = :workflow_id, priority = :priority,
    enabled = :enabled, direct_reveal_allowed = :direct_reveal_allowed,
    requires_mfa = :requires_mfa, reveal_ttl_seconds = :reveal_ttl_seconds, updated_at = :now
WHERE id = :id;

-- name: policy_delete :count
-- Removes a rule that is not the system's own; requests it decided keep their snapshot.
DELETE FROM policy_rules WHERE id = :id AND NOT is_system;

-- name: policy_list :many
-- Returns a page of all rules: the highest priority first, then the oldest.
SELECT r.id, r.name, r.selector, r.workflow_id, r.priority, r.enabled, r.is_system,
       r.direct_reveal_allowed, r.requires_mfa, r.reveal_ttl_seconds, r.project_id, r.team_id,
       r.created_at, r.updated_at, 0 AS depth
FROM policy_rules AS r
WHERE :after_id IS NULL
   OR r.priority < :after_priority
   OR (r.priority = :after_priority AND (r.created_at, r.id) > (:after_at, :after_id))
ORDER BY r.priority DESC, r.created_at, r.id
LIMIT :limit;

-- name: policy_list_for_project :many
-- Returns a page of what governs a project, first winner first: its own rules in any state, and the
-- enabled ones of its teams and of the platform. A rule id asks for that rule alone.
WITH RECURSIVE lineage (team_id, distance) AS (
  SELECT p.team_id, 0 FROM projects AS p WHERE p.id = :project_id AND p.team_id IS NOT NULL
  UNION
  SELECT t.parent_team_id, l.distance + 1
  FROM lineage AS l
  JOIN teams AS t ON t.id = l.team_id
  WHERE t.parent_team_id IS NOT NULL AND l.distance < 100000
), found AS (
  SELECT r.id, r.name, r.selector, r.workflow_id, r.priority, r.enabled, r.is_system,
       r.direct_reveal_allowed, r.requires_mfa, r.reveal_ttl_seconds, r.project_id, r.team_id,
       r.created_at, r.updated_at, w.name AS workflow_name, t.name AS team_name,
         CASE WHEN r.project_id IS NOT NULL THEN 0
              WHEN r.team_id IS NOT NULL THEN 1 + l.distance
              ELSE 1000 END AS depth
  FROM policy_rules AS r
  JOIN workflow_definitions AS w ON w.id = r.workflow_id
  LEFT JOIN lineage AS l ON l.team_id = r.team_id
  LEFT JOIN teams AS t ON t.id = r.team_id
  WHERE (r.project_id = :project_id
         OR (r.enabled AND r.project_id IS NULL AND (r.team_id IS NULL OR l.team_id IS NOT NULL)))
    AND (:id IS NULL OR r.id = :id)
)
SELECT id, name, selector, workflow_id, priority, enabled, is_system, project_id, team_id,
       created_at, updated_at, workflow_name, team_name, depth
FROM found
WHERE :after_id IS NULL
   OR priority < :after_priority
   OR (priority = :after_priority AND (depth, created_at, id) > (:after_depth, :after_at, :after_id))
ORDER BY priority DESC, depth, created_at, id
LIMIT :limit;

-- name: policy_list_for_team :many
-- Returns a page of what a team gives its projects, first winner first: its own rules in any state,
-- and the enabled ones of the teams above it and of the platform; never a project's. A rule id asks
-- for that rule alone.
WITH RECURSIVE lineage (team_id, distance) AS (
  SELECT t.id, 0 FROM teams AS t WHERE t.id = :team_id
  UNION
  SELECT t.parent_team_id, l.distance + 1
  FROM lineage AS l
  JOIN teams AS t ON t.id = l.team_id
  WHERE t.parent_team_id IS NOT NULL AND l.distance < 100000
), found AS (
  SELECT r.id, r.name, r.selector, r.workflow_id, r.priority, r.enabled, r.is_system,
       r.direct_reveal_allowed, r.requires_mfa, r.reveal_ttl_seconds, r.project_id, r.team_id,
       r.created_at, r.updated_at, w.name AS workflow_name, t.name AS team_name,
         CASE WHEN r.team_id IS NOT NULL THEN 1 + l.distance ELSE 1000 END AS depth
  FROM policy_rules AS r
  JOIN workflow_definitions AS w ON w.id = r.workflow_id
  LEFT JOIN lineage AS l ON l.team_id = r.team_id
  LEFT JOIN teams AS t ON t.id = r.team_id
  WHERE r.project_id IS NULL
    AND (r.team_id = :team_id
         OR (r.enabled AND (r.team_id IS NULL OR l.team_id IS NOT NULL)))
    AND (:id IS NULL OR r.id = :id)
)
SELECT id, name, selector, workflow_id, priority, enabled, is_system, project_id, team_id,
       created_at, updated_at, workflow_name, team_name, depth
FROM found
WHERE :after_id IS NULL
   OR priority < :after_priority
   OR (priority = :after_priority AND (depth, created_at, id) > (:after_depth, :after_at, :after_id))
ORDER BY priority DESC, depth, created_at, id
LIMIT :limit;

-- name: policy_count_unpinned :scalar
-- Returns how many rules of a workflow could match a production environment.
SELECT count(*) FROM policy_rules
WHERE workflow_id = :workflow_id AND coalesce(selector ->> 'environment_kind', '') <> 'non_prod';

-- name: policy_selector_insert :count
-- Keeps the selector a change of a rule left behind, where readers of the audit trail do not look.
INSERT INTO policy_rule_selectors (change_id, policy_rule_id, selector, created_at)
VALUES (:change_id, :policy_rule_id, :selector, :now);

-- name: policy_history_list :many
-- Returns the changes of a rule before a moment, newest first, each with the selector it left
-- behind and the present name of its workflow.
SELECT a.id, a.actor, a.action, a.correlation_id, a.metadata, a.occurred_at, s.selector,
       w.name AS workflow_name
FROM audit_events AS a
LEFT JOIN policy_rule_selectors AS s ON s.change_id = a.correlation_id
LEFT JOIN workflow_definitions AS w ON CAST(w.id AS text) = a.metadata ->> 'workflow_id'
WHERE a.resource = :resource AND a.status = 'success'
  AND a.action IN ('policy.create', 'policy.update', 'policy.delete')
  AND (:before_at IS NULL OR (a.occurred_at, a.id) < (:before_at, :before_id))
ORDER BY a.occurred_at DESC, a.id DESC
LIMIT :limit;
