-- Who changed a workflow: every change, oldest first, one row for each thing that became different, from
-- what to what. The making of a workflow tells what it was made with, its deletion what it was.
-- Requests that were submitted before a change keep the workflow as it was then.
-- A workflow is named by id, or by a name that it has or ever had: that may be several, one after the
-- other, which workflow_id tells apart. A workflow that was there before anything was recorded of it
-- begins with a row of the system. An error: there never was such a workflow. A deleted one keeps
-- its story.
-- Limits: a deletion tells of each thing what an earlier row told last; before is empty where none did.
-- Roles have their names of today.
-- Variables: workflow (id or name).
-- Run:  psql -v workflow=standard -f sql/audit/workflow_changes.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\if :{?workflow}
\else
DO $$ BEGIN RAISE EXCEPTION 'workflow is missing (id or name)'
  USING HINT = $run$psql -v workflow=standard -f sql/audit/workflow_changes.sql$run$; END $$;
\endif
WITH asked AS (
  SELECT 'workflow:' || w.id AS resource
  FROM workflow_definitions AS w
  WHERE CAST(w.id AS text) = lower(:'workflow') OR w.name = :'workflow'
  UNION
  SELECT a.resource
  FROM audit_events AS a
  WHERE a.action IN ('workflow.create', 'workflow.update', 'workflow.delete')
    AND a.status = 'success'
    AND (a.resource = 'workflow:' || lower(:'workflow')
         OR a.metadata ->> 'name' = :'workflow')
), story AS (
  SELECT a.id, a.occurred_at, a.actor, a.action, a.resource, a.http_request_id,
         CASE a.action WHEN 'workflow.update' THEN a.metadata -> 'changes'
                       ELSE a.metadata END AS facts
  FROM asked AS q
  JOIN audit_events AS a ON a.resource = q.resource AND a.status = 'success'
   AND a.action IN ('workflow.create', 'workflow.update', 'workflow.delete')
), told AS (
  SELECT s.resource, s.id, s.occurred_at, s.actor, s.action, s.http_request_id, k.place, k.key,
         CASE s.action WHEN 'workflow.update' THEN s.facts -> k.key -> 'before'
                       WHEN 'workflow.delete' THEN coalesce(b.value, s.facts -> k.key) END AS before,
         CASE s.action WHEN 'workflow.update' THEN s.facts -> k.key -> 'after'
                       WHEN 'workflow.create' THEN s.facts -> k.key END AS after
  FROM story AS s
  JOIN (VALUES (1, 'name'), (2, 'description'), (3, 'enabled'), (4, 'is_default'),
               (5, 'min_approvers'), (6, 'auto_approve'), (7, 'approver_role_id'),
               (8, 'allow_self_approval'), (9, 'requires_security_approval'),
               (10, 'require_justification'), (11, 'scoped_policy_authorable'),
               (12, 'request_ttl_seconds'), (13, 'wrap_ttl_created_seconds'),
               (14, 'wrap_ttl_approved_seconds'), (15, 'wrap_ttl_claimed_seconds'),
               (16, 'fill_ttl_seconds'), (17, 'notification_channels'))
    AS k (place, key) ON s.action <> 'workflow.update' OR s.facts ? k.key
  LEFT JOIN LATERAL (
    SELECT CASE e.action WHEN 'workflow.update' THEN e.facts -> k.key -> 'after'
                         ELSE e.facts -> k.key END AS value
    FROM story AS e
    WHERE e.resource = s.resource AND e.action <> 'workflow.delete' AND e.facts ? k.key
    ORDER BY e.occurred_at DESC, e.id DESC
    LIMIT 1) AS b ON s.action = 'workflow.delete'
  UNION ALL
  SELECT q.resource, NULL, w.created_at, 'system', 'workflow.create', NULL, 0, NULL, NULL, NULL
  FROM asked AS q
  JOIN workflow_definitions AS w ON q.resource = 'workflow:' || w.id
  WHERE NOT EXISTS (
    SELECT 1 FROM story AS s WHERE s.resource = q.resource AND s.action = 'workflow.create')
)
SELECT d.occurred_at, d.actor, u.email AS who, d.action,
       CASE d.key WHEN 'approver_role_id' THEN 'approver_role' ELSE d.key END AS changed,
       coalesce(b.name, d.before #>> '{}') AS before, coalesce(f.name, d.after #>> '{}') AS after,
       d.http_request_id, split_part(d.resource, ':', 2) AS workflow_id
FROM told AS d
LEFT JOIN local_users AS u ON d.actor = 'user:' || u.id
LEFT JOIN roles AS b ON d.key = 'approver_role_id' AND CAST(b.id AS text) = d.before #>> '{}'
LEFT JOIN roles AS f ON d.key = 'approver_role_id' AND CAST(f.id AS text) = d.after #>> '{}'
ORDER BY d.resource, d.occurred_at, d.id NULLS FIRST, d.place;
-- A slip of the pen must not read as if nothing had happened.
SELECT :ROW_COUNT = 0 AS unknown, set_config('audit.asked', :'workflow', false) AS asked \gset
\if :unknown
DO $$ BEGIN RAISE EXCEPTION 'no such workflow: %', current_setting('audit.asked')
  USING HINT = 'No workflow has or ever had this id or name.'; END $$;
\endif
