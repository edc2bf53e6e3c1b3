-- Who may approve what, now: every grant in force that carries secret.approve, whatever its role is
-- called, with its scope in words. Grants that have ended are left out.
-- A scope that names a team covers the teams below it too: teams_below names them. All of a scope
-- must hold. without_effect says why nobody can approve anything through a grant: its account is
-- disabled, or what its scope names is gone, archived or does not go together.
-- Who may approve in one project: project_approvers.sql.
-- Variables: none.
-- Run:  psql -f sql/audit/who_may_approve.sql
\set ON_ERROR_STOP on
-- Compiling this takes longer than answering it.
SELECT set_config('jit', 'off', false) AS jit \gset
-- Ids in scopes and of people are texts and keys are not: they are turned into keys, for the indexes.
WITH RECURSIVE live AS (
  SELECT g.*, r.name AS role,
         CASE WHEN g.scope ->> 'team_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
              THEN CAST(g.scope ->> 'team_id' AS uuid) END AS team_id,
         CASE WHEN g.scope ->> 'project_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
              THEN CAST(g.scope ->> 'project_id' AS uuid) END AS project_id,
         CASE WHEN g.scope ->> 'environment_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
              THEN CAST(g.scope ->> 'environment_id' AS uuid) END AS environment_id,
         CASE WHEN g.granted_by ~ '^user:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
              THEN CAST(substr(g.granted_by, 6) AS uuid) END AS giver_id
  FROM roles AS r
  JOIN user_roles AS g ON g.role_id = r.id
  WHERE r.permissions ? 'secret.approve' AND (g.expires_at IS NULL OR g.expires_at > now())
), subtree AS (
  SELECT t.id AS root_id, t.id, t.name, ARRAY[t.id] AS path
  FROM teams AS t
  WHERE t.id IN (SELECT g.team_id FROM live AS g)
  UNION ALL
  SELECT s.root_id, t.id, t.name, s.path || t.id
  FROM subtree AS s
  JOIN teams AS t ON t.parent_team_id = s.id
  WHERE t.id <> ALL (s.path)
), below AS (
  SELECT s.root_id, string_agg(s.name, ', ' ORDER BY s.name) FILTER (WHERE s.id <> s.root_id) AS names
  FROM subtree AS s
  GROUP BY s.root_id
)
SELECT u.email, u.disabled, g.role,
       CASE WHEN g.scope = '{}' THEN 'everything' ELSE g.scope::text END AS scope,
       t.name AS team, b.names AS teams_below, p.name AS project, e.name AS environment,
       CASE WHEN u.disabled THEN 'account disabled'
            WHEN EXISTS (
              SELECT 1 FROM jsonb_each(g.scope) AS s (key, value)
              WHERE s.key NOT IN ('team_id', 'project_id', 'environment_id', 'secret_ref_prefix',
                                  'provider', 'cluster')
                 OR jsonb_typeof(s.value) <> 'string' OR s.value = '""') THEN 'scope not understood'
            WHEN g.scope ? 'team_id' AND t.id IS NULL THEN 'team gone'
            WHEN g.scope ? 'project_id' AND p.id IS NULL THEN 'project gone'
            WHEN g.scope ? 'environment_id' AND (e.id IS NULL OR e.deleted_at IS NOT NULL)
              THEN 'environment gone'
            WHEN e.project_id <> p.id THEN 'environment of another project'
            WHEN t.id IS NOT NULL AND o.id IS NOT NULL AND NOT EXISTS (
              SELECT 1 FROM subtree AS s WHERE s.root_id = t.id AND s.id = o.team_id)
              THEN 'project outside the team'
            WHEN o.status = 'archived' THEN 'project archived' END AS without_effect,
       coalesce(v.email, g.granted_by) AS granted_by, g.granted_at, g.expires_at, g.reason
FROM live AS g
JOIN local_users AS u ON u.id = g.user_id
LEFT JOIN teams AS t ON t.id = g.team_id
LEFT JOIN below AS b ON b.root_id = t.id
LEFT JOIN projects AS p ON p.id = g.project_id
LEFT JOIN environments AS e ON e.id = g.environment_id
LEFT JOIN projects AS o ON o.id = coalesce(p.id, e.project_id)
LEFT JOIN local_users AS v ON v.id = g.giver_id
ORDER BY u.email, g.role, g.id;
