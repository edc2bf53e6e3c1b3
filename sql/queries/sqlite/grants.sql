-- name: grant_list_for_user :many
-- Returns each grant of the user that is in force, with its role and its team; the first with every team at or below
-- one of these teams, each with its parent, spaced: told for each grant it would be a product of grants and teams.
-- A grant whose project or environment is gone is left out.
-- Ids are texts here, in scopes and in keys.
WITH RECURSIVE mine AS (
  SELECT ur.id, ur.role_id, ur.scope, ur.expires_at, r.name AS role_name, r.permissions,
         ur.scope ->> 'team_id' AS team_id,
         ur.scope ->> 'project_id' AS project_id,
         ur.scope ->> 'environment_id' AS environment_id
  FROM user_roles AS ur
  JOIN roles AS r ON r.id = ur.role_id
  WHERE ur.user_id = :user_id AND (ur.expires_at IS NULL OR ur.expires_at > :now)
), below (id, parent_id) AS (
  SELECT t.id, t.parent_team_id FROM teams AS t WHERE t.id IN (SELECT m.team_id FROM mine AS m)
  UNION
  SELECT c.id, c.parent_team_id
  FROM below AS b
  JOIN teams AS c ON c.parent_team_id = b.id
)
SELECT m.id, m.role_id, m.role_name, m.permissions, m.scope, m.expires_at, m.team_id,
       CASE WHEN row_number() OVER (ORDER BY m.id) = 1
            THEN (SELECT group_concat(b.id || ' ' || coalesce(b.parent_id, '-'), ' ')
                  FROM below AS b) END AS team_tree
FROM mine AS m
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
-- Ids are texts here, in scopes and in keys.
SELECT ur.id, ur.user_id, u.email AS user_email, ur.role_id, r.name AS role_name, ur.scope,
       ur.granted_by, ur.granted_at, ur.expires_at, ur.reason, r.permissions,
       coalesce(ur.scope ->> 'team_id', p.team_id) AS team_id,
       coalesce(ur.scope ->> 'project_id', e.project_id) AS project_id
FROM user_roles AS ur
JOIN roles AS r ON r.id = ur.role_id
JOIN local_users AS u ON u.id = ur.user_id
LEFT JOIN environments AS e
  ON e.deleted_at IS NULL
 AND e.id = ur.scope ->> 'environment_id'
LEFT JOIN projects AS p
  ON p.id = coalesce(ur.scope ->> 'project_id', e.project_id)
WHERE ur.id = :id;

-- name: grant_list :many
-- Returns a page of the grants whose scope lies in one of the scopes, newest first, ended ones included.
-- Scopes arrive as JSON, which the two databases unpack differently; the places they are for come as lists too, for
-- the indexes, unless some are for no place or for many.
WITH g (scope) AS MATERIALIZED (
  SELECT value FROM json_each(:scopes)
), place_teams (id) AS (
  SELECT value FROM json_each('[' || substr(:team_ids, 2, length(:team_ids) - 2) || ']')
), place_projects (id) AS (
  SELECT value FROM json_each('[' || substr(:project_ids, 2, length(:project_ids) - 2) || ']')
  UNION ALL
  SELECT o.id FROM projects AS o WHERE o.team_id IN (SELECT t.id FROM place_teams AS t)
)
SELECT ur.id, ur.user_id, u.email AS user_email, ur.role_id, r.name AS role_name, ur.scope,
       ur.granted_by, ur.granted_at, ur.expires_at, ur.reason,
       coalesce(ur.scope ->> 'team_id', p.team_id) AS team_id,
       coalesce(ur.scope ->> 'project_id', e.project_id) AS project_id
FROM user_roles AS ur
JOIN roles AS r ON r.id = ur.role_id
JOIN local_users AS u ON u.id = ur.user_id
LEFT JOIN environments AS e
  ON e.deleted_at IS NULL
 AND e.id = ur.scope ->> 'environment_id'
LEFT JOIN projects AS p
  ON p.id = coalesce(ur.scope ->> 'project_id', e.project_id)
WHERE (:user_id IS NULL OR ur.user_id = :user_id)
  AND (:role_id IS NULL OR ur.role_id = :role_id)
  AND (:team_id IS NULL
       OR coalesce(ur.scope ->> 'team_id', p.team_id) = :team_id)
  AND (:active IS NULL OR :active = (ur.expires_at IS NULL OR ur.expires_at > :now))
  AND (:before_at IS NULL OR (ur.granted_at, ur.id) < (:before_at, :before_id))
  AND (:anywhere
       OR ur.scope ->> 'team_id' IN (SELECT t.id FROM place_teams AS t)
       OR ur.scope ->> 'project_id' IN (SELECT o.id FROM place_projects AS o)
       OR ur.scope ->> 'environment_id' IN (
            SELECT j.value FROM json_each('[' || substr(:environment_ids, 2, length(:environment_ids) - 2) || ']') AS j
            UNION ALL
            SELECT v.id FROM environments AS v WHERE v.project_id IN (SELECT o.id FROM place_projects AS o)))
  AND (:everything OR EXISTS (
       SELECT 1 FROM g
       WHERE (g.scope ->> 'project_id' IS NULL
              OR g.scope ->> 'project_id'
                = coalesce(ur.scope ->> 'project_id', e.project_id))
         AND (g.scope -> 'team_ids' IS NULL
              OR coalesce(ur.scope ->> 'team_id', p.team_id) IN
                (SELECT t.value FROM json_each(g.scope, '$.team_ids') AS t))
         AND (g.scope ->> 'environment_id' IS NULL
              OR g.scope ->> 'environment_id' = ur.scope ->> 'environment_id')
         AND (g.scope ->> 'secret_ref_prefix' IS NULL
              OR substr(ur.scope ->> 'secret_ref_prefix', 1, length(g.scope ->> 'secret_ref_prefix'))
                = g.scope ->> 'secret_ref_prefix')
         AND (g.scope ->> 'provider' IS NULL OR g.scope ->> 'provider' = ur.scope ->> 'provider')
         AND (g.scope ->> 'cluster' IS NULL OR g.scope ->> 'cluster' = ur.scope ->> 'cluster')))
ORDER BY ur.granted_at DESC, ur.id DESC
LIMIT :limit;

-- name: grant_list_of_role :many
-- Returns grants of the role that are in force, the user's or everybody's, in the order of their ids after one.
-- Ids are texts here, in scopes and in keys.
SELECT ur.id, ur.user_id, ur.scope, ur.expires_at,
       coalesce(ur.scope ->> 'team_id', p.team_id) AS team_id,
       coalesce(ur.scope ->> 'project_id', e.project_id) AS project_id
FROM user_roles AS ur
LEFT JOIN environments AS e
  ON e.deleted_at IS NULL
 AND e.id = ur.scope ->> 'environment_id'
LEFT JOIN projects AS p
  ON p.id = coalesce(ur.scope ->> 'project_id', e.project_id)
WHERE ur.role_id = :role_id
  AND (ur.expires_at IS NULL OR ur.expires_at > :now)
  AND (:user_id IS NULL OR ur.user_id = :user_id)
  AND (:after_id IS NULL OR ur.id > :after_id)
ORDER BY ur.id
LIMIT :limit;
