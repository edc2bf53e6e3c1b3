-- Who may approve requests of a project now, and through what: one row for each grant that is in
-- force, belongs to an enabled account, has a role with secret.approve, and whose scope covers
-- something in the project. A team in a scope covers what stands below it; all of a scope must hold.
-- limited_to is empty where the grant covers every request of the project; otherwise it covers only
-- those for this environment, path, provider and cluster. reached_through tells what of the scope
-- leads here. No row: no such project. A row without a person: nobody may approve.
-- Beyond this a request may ask for one role by its workflow, and nobody approves their own unless
-- its workflow lets them. Nothing is approved while project_status is archived.
-- Variables: project_id (uuid of the project).
-- Run:  psql -v project_id=0190… -f sql/audit/project_approvers.sql
\set ON_ERROR_STOP on
WITH RECURSIVE lineage AS (
  SELECT t.id, t.name, t.parent_team_id, 0 AS distance, ARRAY[t.id] AS path
  FROM projects AS p
  JOIN teams AS t ON t.id = p.team_id
  WHERE p.id = CAST(:'project_id' AS uuid)
  UNION ALL
  SELECT t.id, t.name, t.parent_team_id, l.distance + 1, l.path || t.id
  FROM lineage AS l
  JOIN teams AS t ON t.id = l.parent_team_id
  WHERE t.id <> ALL (l.path)
), approvers AS (
  SELECT g.*, u.email, u.display_name, r.name AS role
  FROM roles AS r
  JOIN user_roles AS g ON g.role_id = r.id
  JOIN local_users AS u ON u.id = g.user_id
  WHERE r.permissions ? 'secret.approve' AND NOT u.disabled
    AND (g.expires_at IS NULL OR g.expires_at > now())
    -- A scope that the product cannot read covers nothing.
    AND NOT EXISTS (
      SELECT 1 FROM jsonb_each(g.scope) AS s (key, value)
      WHERE s.key NOT IN ('team_id', 'project_id', 'environment_id', 'secret_ref_prefix',
                          'provider', 'cluster')
         OR jsonb_typeof(s.value) <> 'string' OR s.value = '""')
)
SELECT p.name AS project, p.status AS project_status, a.email, a.display_name, a.role,
       CASE WHEN a.id IS NOT NULL THEN coalesce(nullif(concat_ws(' and ',
         CASE WHEN a.scope ? 'team_id' THEN 'team ' || l.name
           || CASE l.distance WHEN 0 THEN '' ELSE ', ' || l.distance || ' above' END END,
         CASE WHEN a.scope ? 'project_id' THEN 'project' END,
         CASE WHEN a.scope ? 'environment_id' THEN 'environment' END), ''), 'everything')
       END AS reached_through,
       CASE WHEN a.id IS NOT NULL THEN concat_ws(', ', 'environment ' || e.name,
         'paths from ' || (a.scope ->> 'secret_ref_prefix'),
         'provider ' || (a.scope ->> 'provider'), 'cluster ' || (a.scope ->> 'cluster'))
       END AS limited_to,
       coalesce(b.email, a.granted_by) AS granted_by, a.granted_at, a.expires_at, a.reason,
       a.id AS grant_id
FROM projects AS p
LEFT JOIN approvers AS a
  ON (a.scope ->> 'project_id' IS NULL OR a.scope ->> 'project_id' = CAST(p.id AS text))
 AND (a.scope ->> 'team_id' IS NULL
      OR a.scope ->> 'team_id' IN (SELECT CAST(c.id AS text) FROM lineage AS c))
 AND (a.scope ->> 'environment_id' IS NULL
      OR a.scope ->> 'environment_id' IN (
        SELECT CAST(o.id AS text) FROM environments AS o
        WHERE o.project_id = p.id AND o.deleted_at IS NULL))
LEFT JOIN lineage AS l ON CAST(l.id AS text) = a.scope ->> 'team_id'
LEFT JOIN environments AS e
  ON e.project_id = p.id AND CAST(e.id AS text) = a.scope ->> 'environment_id'
LEFT JOIN local_users AS b ON a.granted_by = 'user:' || b.id
WHERE p.id = CAST(:'project_id' AS uuid)
ORDER BY a.email, a.role, a.id;
