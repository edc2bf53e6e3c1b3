-- name: grant_list_for_user :many
-- Returns each grant of the user that is in force, with its role and the ids of its team's subtree, spaced.
-- A grant whose project or environment is gone is left out.
-- Ids in scopes are texts and keys are not: they are turned into keys, for the indexes.
WITH RECURSIVE mine AS (
  SELECT ur.id, ur.role_id, ur.scope, ur.expires_at, r.name AS role_name, r.permissions,
         CASE WHEN ur.scope ->> 'team_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
              THEN CAST(ur.scope ->> 'team_id' AS uuid) END AS team_id,
         CASE WHEN ur.scope ->> 'project_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
              THEN CAST(ur.scope ->> 'project_id' AS uuid) END AS project_id,
         CASE WHEN ur.scope ->> 'environment_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
              THEN CAST(ur.scope ->> 'environment_id' AS uuid) END AS environment_id
  FROM user_roles AS ur
  JOIN roles AS r ON r.id = ur.role_id
  WHERE ur.user_id = :user_id AND (ur.expires_at IS NULL OR ur.expires_at > :now)
), subtree (root_id, team_id) AS (
  SELECT t.id, t.id FROM teams AS t WHERE t.id IN (SELECT m.team_id FROM mine AS m)
  UNION
  SELECT s.root_id, c.id
  FROM subtree AS s
  JOIN teams AS c ON c.parent_team_id = s.team_id
), covered (root_id, team_ids) AS (
  SELECT s.root_id, string_agg(CAST(s.team_id AS text), ' ') FROM subtree AS s GROUP BY s.root_id
)
SELECT m.id, m.role_id, m.role_name, m.permissions, m.scope, m.expires_at, c.team_ids
FROM mine AS m
LEFT JOIN covered AS c ON c.root_id = m.team_id
-- Scalars, not EXISTS: one row by its key, where Postgres would read the whole table to hash it.
WHERE (m.scope ->> 'project_id' IS NULL
       OR (SELECT 1 FROM projects AS p WHERE p.id = m.project_id) = 1)
  AND (m.scope ->> 'environment_id' IS NULL
       OR (SELECT 1 FROM environments AS e
           WHERE e.id = m.environment_id AND e.deleted_at IS NULL) = 1)
ORDER BY m.id
LIMIT 5000;

-- name: grant_find :one
-- Returns the grant with its role and the team and project its scope stands under, in force or not, or no row.
-- Ids in scopes are texts and keys are not: they are turned into keys, for the indexes.
SELECT ur.id, ur.user_id, u.email AS user_email, ur.role_id, r.name AS role_name, ur.scope,
       ur.granted_by, ur.granted_at, ur.expires_at, ur.reason, r.permissions,
       coalesce(ur.scope ->> 'team_id', CAST(p.team_id AS text)) AS team_id,
       coalesce(ur.scope ->> 'project_id', CAST(e.project_id AS text)) AS project_id
FROM user_roles AS ur
JOIN roles AS r ON r.id = ur.role_id
JOIN local_users AS u ON u.id = ur.user_id
LEFT JOIN environments AS e
  ON e.deleted_at IS NULL
 AND e.id =
       CASE WHEN ur.scope ->> 'environment_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
            THEN CAST(ur.scope ->> 'environment_id' AS uuid) END
LEFT JOIN projects AS p
  ON p.id = coalesce(
       CASE WHEN ur.scope ->> 'project_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
            THEN CAST(ur.scope ->> 'project_id' AS uuid) END, e.project_id)
WHERE ur.id = :id;

-- name: grant_list :many
-- Returns a page of the grants whose scope lies in one of the scopes, newest first, ended ones included.
-- Scopes arrive as JSON, which the two databases unpack differently.
WITH g (scope) AS MATERIALIZED (
  SELECT value FROM jsonb_array_elements(CAST(:scopes AS jsonb))
)
SELECT ur.id, ur.user_id, u.email AS user_email, ur.role_id, r.name AS role_name, ur.scope,
       ur.granted_by, ur.granted_at, ur.expires_at, ur.reason,
       coalesce(ur.scope ->> 'team_id', CAST(p.team_id AS text)) AS team_id,
       coalesce(ur.scope ->> 'project_id', CAST(e.project_id AS text)) AS project_id
FROM user_roles AS ur
JOIN roles AS r ON r.id = ur.role_id
JOIN local_users AS u ON u.id = ur.user_id
LEFT JOIN environments AS e
  ON e.deleted_at IS NULL
 AND e.id =
       CASE WHEN ur.scope ->> 'environment_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
            THEN CAST(ur.scope ->> 'environment_id' AS uuid) END
LEFT JOIN projects AS p
  ON p.id = coalesce(
       CASE WHEN ur.scope ->> 'project_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
            THEN CAST(ur.scope ->> 'project_id' AS uuid) END, e.project_id)
WHERE (:user_id IS NULL OR ur.user_id = :user_id)
  AND (:role_id IS NULL OR ur.role_id = :role_id)
  AND (:team_id IS NULL
       OR coalesce(ur.scope ->> 'team_id', CAST(p.team_id AS text)) = CAST(:team_id AS text))
  AND (:active IS NULL OR :active = (ur.expires_at IS NULL OR ur.expires_at > :now))
  AND (:before_at IS NULL OR (ur.granted_at, ur.id) < (:before_at, :before_id))
  AND (:everything OR EXISTS (
       SELECT 1 FROM g
       WHERE (g.scope ->> 'project_id' IS NULL
              OR g.scope ->> 'project_id'
                = coalesce(ur.scope ->> 'project_id', CAST(e.project_id AS text)))
         AND (g.scope -> 'team_ids' IS NULL
              OR g.scope -> 'team_ids' @> to_jsonb(coalesce(ur.scope ->> 'team_id', CAST(p.team_id AS text))))
         AND (g.scope ->> 'environment_id' IS NULL
              OR g.scope ->> 'environment_id' = ur.scope ->> 'environment_id')
         AND (g.scope ->> 'secret_ref_prefix' IS NULL
              OR starts_with(ur.scope ->> 'secret_ref_prefix', g.scope ->> 'secret_ref_prefix'))
         AND (g.scope ->> 'provider' IS NULL OR g.scope ->> 'provider' = ur.scope ->> 'provider')
         AND (g.scope ->> 'cluster' IS NULL OR g.scope ->> 'cluster' = ur.scope ->> 'cluster')))
ORDER BY ur.granted_at DESC, ur.id DESC
LIMIT :limit;

-- name: grant_list_of_role :many
-- Returns grants of the role that are in force, the user's or everybody's, in the order of their ids after one.
-- Ids in scopes are texts and keys are not: they are turned into keys, for the indexes.
SELECT ur.id, ur.user_id, ur.scope, ur.expires_at,
       coalesce(ur.scope ->> 'team_id', CAST(p.team_id AS text)) AS team_id,
       coalesce(ur.scope ->> 'project_id', CAST(e.project_id AS text)) AS project_id
FROM user_roles AS ur
LEFT JOIN environments AS e
  ON e.deleted_at IS NULL
 AND e.id =
       CASE WHEN ur.scope ->> 'environment_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
            THEN CAST(ur.scope ->> 'environment_id' AS uuid) END
LEFT JOIN projects AS p
  ON p.id = coalesce(
       CASE WHEN ur.scope ->> 'project_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
            THEN CAST(ur.scope ->> 'project_id' AS uuid) END, e.project_id)
WHERE ur.role_id = :role_id
  AND (ur.expires_at IS NULL OR ur.expires_at > :now)
  AND (:user_id IS NULL OR ur.user_id = :user_id)
  AND (:after_id IS NULL OR ur.id > :after_id)
ORDER BY ur.id
LIMIT :limit;
