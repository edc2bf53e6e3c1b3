-- Who changed a policy rule: every change, oldest first, one row for each thing that became
-- different, from what to what. The making of a rule tells what it was made with, its deletion what
-- it was. Selectors are told with their values, which the audit trail itself never holds.
-- A rule that was there before anything was recorded of it begins with a row of the system. No row:
-- there never was such a rule. A deleted rule keeps its story.
-- Limits: a change of the workflow that the rule names is a change of the workflow, and not here.
-- Workflows, teams and projects have their names of today.
-- Variables: rule_id (uuid of the rule).
-- Run:  psql -v rule_id=0190… -f sql/audit/rule_changes.sql
\set ON_ERROR_STOP on
WITH story AS (
  SELECT a.id, a.occurred_at, a.actor, a.action, a.metadata, a.http_request_id, s.selector,
         lag(s.selector) OVER (ORDER BY a.occurred_at, a.id) AS selector_before
  FROM audit_events AS a
  LEFT JOIN policy_rule_selectors AS s ON s.change_id = a.correlation_id
  WHERE a.resource = 'policy_rule:' || CAST(:'rule_id' AS uuid) AND a.status = 'success'
    AND a.action IN ('policy.create', 'policy.update', 'policy.delete')
), told AS (
  SELECT s.id, s.occurred_at, s.actor, s.action, s.metadata, s.http_request_id, k.place, k.key,
         CASE WHEN s.action = 'policy.create' THEN NULL
              WHEN k.key = 'selector' AND s.action = 'policy.delete' THEN s.selector
              WHEN k.key = 'selector'
                THEN coalesce(s.selector_before, s.metadata -> 'before' -> 'selector_keys')
              WHEN s.action = 'policy.delete' THEN s.metadata -> k.key
              ELSE s.metadata -> 'before' -> k.key END AS before,
         CASE WHEN s.action = 'policy.delete' THEN NULL
              WHEN k.key = 'selector' THEN s.selector
              ELSE s.metadata -> k.key END AS after
  FROM story AS s
  JOIN (VALUES (1, 'name'), (2, 'enabled'), (3, 'priority'), (4, 'selector'), (5, 'workflow_id'),
               (6, 'direct_reveal_allowed'), (7, 'requires_mfa'), (8, 'reveal_ttl_seconds'))
    AS k (place, key) ON s.action <> 'policy.update' OR s.metadata -> 'changed_keys' ? k.key
  UNION ALL
  SELECT NULL, r.created_at, 'system', 'policy.create',
         jsonb_build_object('project_id', r.project_id, 'team_id', r.team_id), NULL, 0, NULL,
         NULL, NULL
  FROM policy_rules AS r
  WHERE r.id = CAST(:'rule_id' AS uuid)
    AND NOT EXISTS (SELECT 1 FROM story AS s WHERE s.action = 'policy.create')
)
SELECT d.occurred_at, d.actor, u.email AS who, d.action,
       d.metadata ->> 'actor_permission_used' AS permission_used,
       coalesce('project ' || coalesce(p.name, d.metadata ->> 'project_id'),
                'team ' || coalesce(t.name, d.metadata ->> 'team_id'), 'platform') AS anchor,
       CASE d.key WHEN 'workflow_id' THEN 'workflow' ELSE d.key END AS changed,
       coalesce(b.name, d.before #>> '{}') AS before, coalesce(f.name, d.after #>> '{}') AS after,
       d.http_request_id
FROM told AS d
LEFT JOIN local_users AS u ON d.actor = 'user:' || u.id
LEFT JOIN projects AS p ON CAST(p.id AS text) = d.metadata ->> 'project_id'
LEFT JOIN teams AS t ON CAST(t.id AS text) = d.metadata ->> 'team_id'
LEFT JOIN workflow_definitions AS b ON d.key = 'workflow_id' AND CAST(b.id AS text) = d.before #>> '{}'
LEFT JOIN workflow_definitions AS f ON d.key = 'workflow_id' AND CAST(f.id AS text) = d.after #>> '{}'
ORDER BY d.occurred_at, d.id NULLS FIRST, d.place;
