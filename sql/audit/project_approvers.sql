-- Who may approve requests of a project, now or at a moment, and through what: one row for each grant
-- that is in force then, belongs to an enabled account, has a role with secret.approve, and whose
-- scope covers something in the project. A team in a scope covers what stands below it; all of a scope
-- must hold. limited_to is empty where the grant covers every request of the project; otherwise it
-- covers only those for this environment, path, provider and cluster. reached_through tells what of
-- the scope leads here. An error: no such project then. A row without a person: nobody may approve.
-- These are all who may approve at all. A request may ask for one role by its workflow (approver_role in
-- workflow_changes.sql): it can be approved only through the rows that have this role. And nobody
-- approves their own unless its workflow lets them. Nothing is approved while project_status is archived.
-- At the moment itself everything of that moment has happened. As they were then, told from the
-- append-only trail: grants with end and reason, roles with name and permissions, disabled accounts,
-- where the project and the teams stood, environments, project_status. As of today: people's addresses
-- and the names of projects, environments and of teams that are still there.
-- Limits: what was changed in the tables by hand left no trail.
-- Variables: project (id or name of today), at (timestamp with time zone; optional, now without it).
-- project_id, as project was called before, still works.
-- Run:  psql -v project=ledger -v at='2026-01-01T00:00:00Z' -f sql/audit/project_approvers.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\if :{?project_id}
\set project :project_id
\endif
\if :{?project}
\else
DO $$ BEGIN RAISE EXCEPTION 'project is missing (id or name of today)'
  USING HINT = $run$psql -v project=ledger -v at='2026-01-01T00:00:00Z' -f sql/audit/project_approvers.sql$run$; END $$;
\endif
\if :{?at}
\else
\set at now
\endif
-- Compiling this takes longer than answering it.
SELECT set_config('jit', 'off', false) AS jit \gset
-- What the trail tells is expected to be little, and compared row by row, when it is much.
SELECT set_config('enable_nestloop', 'off', false) AS nestloop \gset
WITH RECURSIVE moment AS (
  SELECT CAST(:'at' AS timestamptz) AS at
), later AS MATERIALIZED (
  -- Of the changes of a thing since then, the first tells how it was.
  SELECT a.id, a.occurred_at, a.resource, a.action, a.metadata
  FROM moment AS m
  JOIN audit_events AS a ON a.status = 'success' AND a.occurred_at > m.at
   AND a.action IN ('grant.update', 'grant.revoke', 'role.update', 'role.delete', 'team.update',
                    'team.delete', 'project.move', 'project.archive', 'project.restore',
                    'user.disable', 'user.enable')
), was AS MATERIALIZED (
  SELECT DISTINCT ON (l.resource, k.key) l.resource, k.key, k.value
  FROM later AS l
  CROSS JOIN LATERAL jsonb_each(l.metadata -> 'before') AS k (key, value)
  ORDER BY l.resource, k.key, l.occurred_at, l.id
), turned AS MATERIALIZED (
  SELECT DISTINCT ON (l.resource) l.resource, l.action
  FROM later AS l
  WHERE l.action IN ('project.archive', 'project.restore', 'user.disable', 'user.enable')
  ORDER BY l.resource, l.occurred_at, l.id
), roles_then AS (
  SELECT r.id, coalesce(n.value #>> '{}', r.name) AS name,
         coalesce(k.value, r.permissions) AS permissions
  FROM (SELECT r.id, r.name, r.permissions
        FROM roles AS r
        UNION ALL
        SELECT CAST(split_part(l.resource, ':', 2) AS uuid), l.metadata ->> 'name',
               l.metadata -> 'permissions'
        FROM later AS l
        WHERE l.action = 'role.delete') AS r
  LEFT JOIN was AS n ON n.resource = 'role:' || r.id AND n.key = 'name'
  LEFT JOIN was AS k ON k.resource = 'role:' || r.id AND k.key = 'permissions'
), teams_then AS (
  SELECT t.id, t.name,
         CASE WHEN c.resource IS NULL THEN t.parent_team_id
              ELSE CAST(c.value #>> '{}' AS uuid) END AS parent_team_id
  FROM (SELECT t.id, t.name, t.parent_team_id
        FROM teams AS t
        UNION ALL
        SELECT CAST(split_part(l.resource, ':', 2) AS uuid), l.metadata ->> 'name',
               CAST(l.metadata ->> 'parent_team_id' AS uuid)
        FROM later AS l
        WHERE l.action = 'team.delete') AS t
  LEFT JOIN was AS c ON c.resource = 'team:' || t.id AND c.key = 'parent_team_id'
), project AS (
  SELECT p.id, p.name,
         CASE s.action WHEN 'project.archive' THEN 'active' WHEN 'project.restore' THEN 'archived'
                       ELSE p.status END AS status,
         CASE WHEN c.resource IS NULL THEN p.team_id
              ELSE CAST(c.value #>> '{}' AS uuid) END AS team_id
  FROM moment AS m
  JOIN projects AS p ON p.created_at <= m.at
   AND (CAST(p.id AS text) = lower(:'project') OR p.name = :'project')
  LEFT JOIN was AS c ON c.resource = 'project:' || p.id AND c.key = 'team_id'
  LEFT JOIN turned AS s ON s.resource = 'project:' || p.id
), lineage AS (
  SELECT p.id AS project_id, t.id, t.name, t.parent_team_id, 0 AS distance, ARRAY[t.id] AS path
  FROM project AS p
  JOIN teams_then AS t ON t.id = p.team_id
  UNION ALL
  SELECT l.project_id, t.id, t.name, t.parent_team_id, l.distance + 1, l.path || t.id
  FROM lineage AS l
  JOIN teams_then AS t ON t.id = l.parent_team_id
  WHERE t.id <> ALL (l.path)
), given AS (
  SELECT g.id, g.user_id, g.role_id, g.scope, g.granted_by, g.granted_at, g.expires_at, g.reason
  FROM user_roles AS g
  UNION ALL
  SELECT CAST(split_part(l.resource, ':', 2) AS uuid), CAST(l.metadata ->> 'user_id' AS uuid),
         CAST(l.metadata ->> 'role_id' AS uuid), l.metadata -> 'scope', l.metadata ->> 'granted_by',
         coalesce(CAST(l.metadata ->> 'granted_at' AS timestamptz),
                  (SELECT min(c.occurred_at) FROM audit_events AS c
                   WHERE c.resource = l.resource AND c.action = 'grant.create'
                     AND c.status = 'success')),
         CAST(l.metadata ->> 'expires_at' AS timestamptz), l.metadata ->> 'reason'
  FROM later AS l
  WHERE l.action = 'grant.revoke'
), approvers AS (
  SELECT g.id, g.scope, g.granted_by, g.granted_at, u.email, u.display_name, r.name AS role,
         CASE WHEN e.resource IS NULL THEN g.expires_at
              ELSE CAST(e.value #>> '{}' AS timestamptz) END AS expires_at,
         CASE WHEN w.resource IS NULL THEN g.reason ELSE w.value #>> '{}' END AS reason
  FROM moment AS m
  JOIN given AS g ON g.granted_at <= m.at OR g.granted_at IS NULL
  JOIN roles_then AS r ON r.id = g.role_id AND r.permissions ? 'secret.approve'
  JOIN local_users AS u ON u.id = g.user_id
  LEFT JOIN was AS e ON e.resource = 'grant:' || g.id AND e.key = 'expires_at'
  LEFT JOIN was AS w ON w.resource = 'grant:' || g.id AND w.key = 'reason'
  LEFT JOIN turned AS d ON d.resource = 'user:' || u.id
  WHERE NOT CASE d.action WHEN 'user.disable' THEN false WHEN 'user.enable' THEN true
                          ELSE u.disabled END
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
FROM moment AS m
CROSS JOIN project AS p
LEFT JOIN approvers AS a
  ON (a.expires_at IS NULL OR a.expires_at > m.at)
 AND (a.scope ->> 'project_id' IS NULL OR a.scope ->> 'project_id' = CAST(p.id AS text))
 AND (a.scope ->> 'team_id' IS NULL
      OR EXISTS (SELECT 1 FROM lineage AS c
                 WHERE c.project_id = p.id AND CAST(c.id AS text) = a.scope ->> 'team_id'))
 AND (a.scope ->> 'environment_id' IS NULL
      OR a.scope ->> 'environment_id' IN (
        SELECT CAST(o.id AS text) FROM environments AS o
        WHERE o.project_id = p.id AND (o.deleted_at IS NULL OR o.deleted_at > m.at)))
LEFT JOIN lineage AS l ON l.project_id = p.id AND CAST(l.id AS text) = a.scope ->> 'team_id'
LEFT JOIN environments AS e
  ON e.project_id = p.id AND CAST(e.id AS text) = a.scope ->> 'environment_id'
LEFT JOIN local_users AS b ON a.granted_by = 'user:' || b.id
ORDER BY p.name, a.email, a.role, a.id;
-- A slip of the pen must not read as if nothing had happened.
SELECT :ROW_COUNT = 0 AS unknown, set_config('audit.asked', :'project', false) AS asked \gset
\if :unknown
DO $$ BEGIN RAISE EXCEPTION 'no such project: %', current_setting('audit.asked')
  USING HINT = coalesce(
    (SELECT 'It was made later, at ' || p.created_at || '.'
     FROM projects AS p
     WHERE current_setting('audit.asked') = p.name
        OR lower(current_setting('audit.asked')) = CAST(p.id AS text)
     LIMIT 1),
    (SELECT 'At another time this was the name of ' || string_agg(DISTINCT p.name, ', ') || '.'
     FROM audit_events AS a
     JOIN projects AS p ON a.resource = 'project:' || p.id
     WHERE a.action = 'project.update' AND a.status = 'success'
       AND a.metadata -> 'before' ->> 'name' = current_setting('audit.asked')),
    'No project has or ever had this id or name.'); END $$;
\endif
