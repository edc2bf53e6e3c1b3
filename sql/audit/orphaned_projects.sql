-- Active projects that nobody looks after any more; a project has one row for each finding.
-- nobody may approve: no enabled account has a grant in force of a role with secret.approve whose
-- scope covers something in the project; one that is limited to an environment, path, provider or
-- cluster is enough. nobody may administer: the same with project.edit, over the project as a whole.
-- Unscoped grants count for both.
-- team is gone: the trail put the project under a team, and it stands under none without having been
-- moved (somebody deleted the team by hand). team is archived, team above is archived: its team, or
-- one further up; both detail the nearest one. A project that was never put under a team has none of
-- these findings.
-- no live binding: nothing that it is bound to could be asked for: every binding is gone, or belongs
-- to a deleted environment or to a secret behind a disabled provider connection.
-- Variables: none.
-- Run:  psql -f sql/audit/orphaned_projects.sql
\set ON_ERROR_STOP on
-- Compiling this takes longer than answering it.
SELECT set_config('jit', 'off', false) AS jit \gset
WITH RECURSIVE lineage AS (
  SELECT t.id AS root_id, t.id, t.name, t.status, t.parent_team_id, 0 AS distance,
         ARRAY[t.id] AS path
  FROM teams AS t
  UNION ALL
  SELECT l.root_id, t.id, t.name, t.status, t.parent_team_id, l.distance + 1, l.path || t.id
  FROM lineage AS l
  JOIN teams AS t ON t.id = l.parent_team_id
  WHERE t.id <> ALL (l.path)
), grants AS (
  SELECT DISTINCT g.scope ->> 'team_id' AS team_id, g.scope ->> 'project_id' AS project_id,
         g.scope ->> 'environment_id' AS environment_id,
         r.permissions ? 'secret.approve' AS approves,
         -- Nothing narrower than a project covers the project as a whole.
         r.permissions ? 'project.edit' AND g.scope - '{team_id,project_id}'::text[] = '{}'
           AS administers
  FROM user_roles AS g
  JOIN roles AS r ON r.id = g.role_id
  JOIN local_users AS u ON u.id = g.user_id
  WHERE r.permissions ?| '{secret.approve,project.edit}' AND NOT u.disabled
    AND (g.expires_at IS NULL OR g.expires_at > now())
    -- A scope that the product cannot read covers nothing.
    AND NOT EXISTS (
      SELECT 1 FROM jsonb_each(g.scope) AS s (key, value)
      WHERE s.key NOT IN ('team_id', 'project_id', 'environment_id', 'secret_ref_prefix',
                          'provider', 'cluster')
         OR jsonb_typeof(s.value) <> 'string' OR s.value = '""')
), places AS (
  -- Where each grant leads by the narrowest of its ids; then all of its ids are looked at.
  SELECT g.*, p.id, p.team_id AS owner_id
  FROM grants AS g
  JOIN projects AS p ON CAST(p.id AS text) = g.project_id
  UNION ALL
  SELECT g.*, p.id, p.team_id
  FROM grants AS g
  JOIN environments AS e ON CAST(e.id AS text) = g.environment_id
  JOIN projects AS p ON p.id = e.project_id
  WHERE g.project_id IS NULL
  UNION ALL
  SELECT g.*, p.id, p.team_id
  FROM grants AS g
  JOIN lineage AS l ON CAST(l.id AS text) = g.team_id
  JOIN projects AS p ON p.team_id = l.root_id
  WHERE g.project_id IS NULL AND g.environment_id IS NULL
), reached AS (
  SELECT DISTINCT a.id, a.approves, a.administers
  FROM places AS a
  WHERE (a.team_id IS NULL
         OR EXISTS (SELECT 1 FROM lineage AS l
                    WHERE l.root_id = a.owner_id AND CAST(l.id AS text) = a.team_id))
    AND (a.environment_id IS NULL
         OR EXISTS (SELECT 1 FROM environments AS e
                    WHERE CAST(e.id AS text) = a.environment_id AND e.project_id = a.id
                      AND e.deleted_at IS NULL))
), everywhere AS (
  SELECT coalesce(bool_or(g.approves), false) AS approves,
         coalesce(bool_or(g.administers), false) AS administers
  FROM grants AS g
  WHERE g.team_id IS NULL AND g.project_id IS NULL AND g.environment_id IS NULL
), archived AS (
  SELECT DISTINCT ON (l.root_id) l.root_id, l.name, l.distance
  FROM lineage AS l
  WHERE l.status = 'archived'
  ORDER BY l.root_id, l.distance
), found (project_id, finding, detail) AS (
  SELECT p.id, 'nobody may approve', NULL
  FROM projects AS p
  CROSS JOIN everywhere AS w
  WHERE NOT w.approves AND p.id NOT IN (SELECT a.id FROM reached AS a WHERE a.approves)
  UNION ALL
  SELECT p.id, 'nobody may administer', NULL
  FROM projects AS p
  CROSS JOIN everywhere AS w
  WHERE NOT w.administers AND p.id NOT IN (SELECT a.id FROM reached AS a WHERE a.administers)
  UNION ALL
  SELECT p.id, 'team is gone', h.team_id
  FROM projects AS p
  CROSS JOIN LATERAL (
    SELECT CASE a.action WHEN 'project.move' THEN a.metadata -> 'after' ->> 'team_id'
                         ELSE a.metadata ->> 'team_id' END AS team_id
    FROM audit_events AS a
    WHERE a.resource = 'project:' || p.id AND a.status = 'success'
      AND a.action IN ('project.create', 'project.move')
    ORDER BY a.occurred_at DESC, a.id DESC
    LIMIT 1) AS h
  WHERE p.team_id IS NULL AND h.team_id IS NOT NULL
  UNION ALL
  SELECT p.id, CASE a.distance WHEN 0 THEN 'team is archived' ELSE 'team above is archived' END,
         a.name
  FROM projects AS p
  JOIN archived AS a ON a.root_id = p.team_id
  UNION ALL
  SELECT p.id, 'no live binding', NULL
  FROM projects AS p
  WHERE NOT EXISTS (
    SELECT 1
    FROM project_secrets AS b
    JOIN secrets AS s ON s.id = b.secret_id
    LEFT JOIN environments AS e ON e.id = b.environment_id
    LEFT JOIN provider_connections AS c ON c.id = s.provider_connection_id
    WHERE b.project_id = p.id AND e.deleted_at IS NULL
      AND (c.id IS NULL OR c.status = 'active'))
)
SELECT p.id, p.name AS project, t.name AS team, f.finding, f.detail, p.created_at
FROM found AS f
JOIN projects AS p ON p.id = f.project_id AND p.status = 'active'
LEFT JOIN teams AS t ON t.id = p.team_id
ORDER BY p.name, p.id, f.finding;
