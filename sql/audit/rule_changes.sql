-- Who changed a policy rule: every change, oldest first, one row for each thing that became
-- different, from what to what. The making of a rule tells what it was made with, its deletion what
-- it was. Selectors are told with their values, which the audit trail itself never holds.
-- A rule is named by id, or by a name that it has or ever had: that may be several, one after the
-- other, which rule_id tells apart. A rule that was there before anything was recorded of it begins
-- with a row of the system. An error: there never was such a rule. A deleted rule keeps its story.
-- Limits: a change of the workflow that the rule names is a change of the workflow, and not here but in
-- workflow_changes.sql. Workflows, teams and projects have their names of today.
-- Variables: rule (id or name).
-- rule_id, as rule was called before, still works.
-- Run:  psql -v rule=payments -f sql/audit/rule_changes.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\if :{?rule_id}
\set rule :rule_id
\endif
\if :{?rule}
\else
DO $$ BEGIN RAISE EXCEPTION 'rule is missing (id or name)'
  USING HINT = $run$psql -v rule=payments -f sql/audit/rule_changes.sql$run$; END $$;
\endif
WITH asked AS (
  SELECT 'policy_rule:' || r.id AS resource
  FROM policy_rules AS r
  WHERE CAST(r.id AS text) = lower(:'rule') OR r.name = :'rule'
  UNION
  SELECT a.resource
  FROM audit_events AS a
  WHERE a.action IN ('policy.create', 'policy.update', 'policy.delete') AND a.status = 'success'
    AND (a.resource = 'policy_rule:' || lower(:'rule')
         OR :'rule' IN (a.metadata ->> 'name', a.metadata -> 'before' ->> 'name'))
), story AS (
  SELECT a.id, a.occurred_at, a.actor, a.action, a.metadata, a.http_request_id, a.resource,
         s.selector, lag(s.selector) OVER (PARTITION BY a.resource ORDER BY a.occurred_at, a.id)
           AS selector_before
  FROM asked AS q
  JOIN audit_events AS a ON a.resource = q.resource AND a.status = 'success'
   AND a.action IN ('policy.create', 'policy.update', 'policy.delete')
  LEFT JOIN policy_rule_selectors AS s ON s.change_id = a.correlation_id
), told AS (
  SELECT s.resource, s.id, s.occurred_at, s.actor, s.action, s.metadata, s.http_request_id, k.place,
         k.key,
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
  SELECT q.resource, NULL, r.created_at, 'system', 'policy.create',
         jsonb_build_object('project_id', r.project_id, 'team_id', r.team_id), NULL, 0, NULL,
         NULL, NULL
  FROM asked AS q
  JOIN policy_rules AS r ON q.resource = 'policy_rule:' || r.id
  WHERE NOT EXISTS (
    SELECT 1 FROM story AS s WHERE s.resource = q.resource AND s.action = 'policy.create')
)
SELECT d.occurred_at, d.actor, u.email AS who, d.action,
       d.metadata ->> 'actor_permission_used' AS permission_used,
       coalesce('project ' || coalesce(p.name, d.metadata ->> 'project_id'),
                'team ' || coalesce(t.name, d.metadata ->> 'team_id'), 'platform') AS anchor,
       CASE d.key WHEN 'workflow_id' THEN 'workflow' ELSE d.key END AS changed,
       coalesce(b.name, d.before #>> '{}') AS before, coalesce(f.name, d.after #>> '{}') AS after,
       d.http_request_id, split_part(d.resource, ':', 2) AS rule_id
FROM told AS d
LEFT JOIN local_users AS u ON d.actor = 'user:' || u.id
LEFT JOIN projects AS p ON CAST(p.id AS text) = d.metadata ->> 'project_id'
LEFT JOIN teams AS t ON CAST(t.id AS text) = d.metadata ->> 'team_id'
LEFT JOIN workflow_definitions AS b ON d.key = 'workflow_id' AND CAST(b.id AS text) = d.before #>> '{}'
LEFT JOIN workflow_definitions AS f ON d.key = 'workflow_id' AND CAST(f.id AS text) = d.after #>> '{}'
ORDER BY d.resource, d.occurred_at, d.id NULLS FIRST, d.place;
-- A slip of the pen must not read as if nothing had happened.
SELECT :ROW_COUNT = 0 AS unknown, set_config('audit.asked', :'rule', false) AS asked \gset
\if :unknown
DO $$ BEGIN RAISE EXCEPTION 'no such rule: %', current_setting('audit.asked')
  USING HINT = 'No rule has or ever had this id or name.'; END $$;
\endif
