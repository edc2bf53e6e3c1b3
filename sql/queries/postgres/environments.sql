-- name: environment_lock :one
-- Holds the environment until the transaction ends and returns it unless it was deleted, or no row.
-- The row lock waits for requests that are being made in it; SQLite has one writer and needs none.
SELECT id, project_id, name, type, kind, risk_level, description, created_at, updated_at
FROM environments
WHERE id = :id AND deleted_at IS NULL
FOR UPDATE;

-- name: environment_list :many
-- Returns a page of the environments in scope, newest first, under the rule that projects follow.
-- Places that are covered whole arrive as lists, scopes that say more as JSON, which the two databases unpack
-- differently.
SELECT e.id, e.project_id, e.name, e.type, e.kind, e.risk_level, e.description, e.created_at,
       e.updated_at, p.team_id
FROM environments AS e
JOIN projects AS p ON p.id = e.project_id
WHERE e.deleted_at IS NULL
  AND (:id IS NULL OR e.id = :id)
  AND (:project_id IS NULL OR e.project_id = :project_id)
  AND (:kind IS NULL OR e.kind = :kind)
  AND (:before_at IS NULL OR (e.created_at, e.id) < (:before_at, :before_id))
  AND (:everything
       OR p.team_id = ANY (CAST(:whole_teams AS uuid[]))
       OR p.id = ANY (CAST(:whole_projects AS uuid[]))
       OR e.id = ANY (CAST(:whole_environments AS uuid[]))
       OR (:narrow AND EXISTS (
     SELECT 1 FROM jsonb_array_elements(CAST(:scopes AS jsonb)) AS g (scope)
     WHERE (g.scope ->> 'project_id' IS NULL OR g.scope ->> 'project_id' = CAST(p.id AS text))
       AND (g.scope -> 'team_ids' IS NULL OR g.scope -> 'team_ids' @> to_jsonb(CAST(p.team_id AS text)))
       AND (g.scope ->> 'environment_id' IS NULL OR g.scope ->> 'environment_id' = CAST(e.id AS text))
       AND (g.scope ->> 'project_id' IS NOT NULL OR g.scope -> 'team_ids' IS NOT NULL
            OR g.scope ->> 'environment_id' IS NOT NULL))))
ORDER BY e.created_at DESC, e.id DESC
LIMIT :limit;
