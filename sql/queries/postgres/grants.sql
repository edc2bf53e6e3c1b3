-- name: grant_list_for_user :many
-- Returns each grant of the user that is in force, with its role and its team; the first with every team at or below
-- one of these teams, each with its parent, spaced: told for each grant it would be a product of grants and teams.
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
), below (id, parent_id) AS (
  -- OFFSET 0: each by its key, where the planner would read all teams to hash them.
  SELECT t.id, t.parent_team_id
  FROM mine AS m
  CROSS JOIN LATERAL (SELECT t.id, t.parent_team_id FROM teams AS t WHERE t.id = m.team_id OFFSET 0) AS t
  UNION
  SELECT c.id, c.parent_team_id
  FROM below AS b
  CROSS JOIN LATERAL (SELECT t.id, t.parent_team_id FROM teams AS t WHERE t.parent_team_id = b.id OFFSET 0) AS c
)
SELECT m.id, m.role_id, m.role_name, m.permissions, m.scope, m.expires_at, m.team_id,
       CASE WHEN row_number() OVER (ORDER BY m.id) = 1
            THEN (SELECT string_agg(concat(b.id, ' ', coalesce(CAST(b.parent_id AS text), '-')), ' ')
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
-- Scopes arrive as JSON, which the two databases unpack differently; the places they are for come as lists too, for
-- the indexes, unless some are for no place or for many.
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
  AND (:anywhere
       OR ur.scope ->> 'team_id' = ANY (CAST(:team_ids AS text[]))
       OR ur.scope ->> 'project_id' = ANY (CAST(:project_ids AS text[]))
       OR ur.scope ->> 'project_id' = ANY (ARRAY(
            SELECT CAST(o.id AS text) FROM projects AS o
            WHERE o.team_id = ANY (CAST(:team_ids AS uuid[]))))
       OR ur.scope ->> 'environment_id' = ANY (CAST(:environment_ids AS text[]))
       OR ur.scope ->> 'environment_id' = ANY (ARRAY(
            SELECT CAST(v.id AS text) FROM environments AS v
            WHERE v.project_id = ANY (CAST(:project_ids AS uuid[])
                                      || ARRAY(SELECT o.id FROM projects AS o
                                               WHERE o.team_id = ANY (CAST(:team_ids AS uuid[])))))))
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
