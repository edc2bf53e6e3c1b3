-- name: project_lock :one
-- Holds the project until the transaction ends and returns it, or no row.
-- The row lock serialises changes and lets requests in the project be made; SQLite has one writer
-- and needs none.
SELECT id, name, team_id, status, created_at, updated_at FROM projects WHERE id = :id
FOR NO KEY UPDATE;

-- name: project_list :many
-- Returns a page of the projects in scope, newest first. A scope reaches a project when all it says of
-- team, project and environment holds for it, and it says one of them.
-- Places that are covered whole arrive as lists, scopes that say more as JSON, which the two databases unpack
-- differently.
SELECT p.id, p.name, p.team_id, p.status, p.created_at, p.updated_at
FROM projects AS p
WHERE (:id IS NULL OR p.id = :id)
  AND (:team_id IS NULL OR p.team_id = :team_id)
  AND (:status IS NULL OR p.status = :status)
  AND (:before_at IS NULL OR (p.created_at, p.id) < (:before_at, :before_id))
  AND (:everything
       OR p.team_id = ANY (CAST(:whole_teams AS uuid[]))
       OR p.id = ANY (CAST(:whole_projects AS uuid[]))
       OR p.id = ANY (ARRAY(SELECT o.project_id FROM environments AS o
                            WHERE o.id = ANY (CAST(:whole_environments AS uuid[]))))
       OR (:narrow AND EXISTS (
     SELECT 1 FROM jsonb_array_elements(CAST(:scopes AS jsonb)) AS g (scope)
     WHERE (g.scope ->> 'project_id' IS NULL OR g.scope ->> 'project_id' = CAST(p.id AS text))
       AND (g.scope -> 'team_ids' IS NULL OR g.scope -> 'team_ids' @> to_jsonb(CAST(p.team_id AS text)))
       AND (g.scope ->> 'environment_id' IS NULL
            OR EXISTS (SELECT 1 FROM environments AS o
                       WHERE o.project_id = p.id AND CAST(o.id AS text) = g.scope ->> 'environment_id'))
       AND (g.scope ->> 'project_id' IS NOT NULL OR g.scope -> 'team_ids' IS NOT NULL
            OR g.scope ->> 'environment_id' IS NOT NULL))))
ORDER BY p.created_at DESC, p.id DESC
LIMIT :limit;

-- name: project_list_with_environments :many
-- Returns the projects in scope with their environments, one row each.
-- Places that are covered whole arrive as lists, scopes that say more as JSON, which the two databases unpack
-- differently.
SELECT p.id, p.name, p.status, e.id AS environment_id, e.name AS environment_name,
       e.kind AS environment_kind, e.risk_level
FROM projects AS p
LEFT JOIN environments AS e ON e.project_id = p.id AND e.deleted_at IS NULL
WHERE :everything
   OR p.team_id = ANY (CAST(:whole_teams AS uuid[]))
   OR p.id = ANY (CAST(:whole_projects AS uuid[]))
   OR e.id = ANY (CAST(:whole_environments AS uuid[]))
   OR (:narrow AND EXISTS (
     SELECT 1 FROM jsonb_array_elements(CAST(:scopes AS jsonb)) AS g (scope)
     WHERE (g.scope ->> 'project_id' IS NULL OR g.scope ->> 'project_id' = CAST(p.id AS text))
       AND (g.scope -> 'team_ids' IS NULL OR g.scope -> 'team_ids' @> to_jsonb(CAST(p.team_id AS text)))
       AND (g.scope ->> 'environment_id' IS NULL OR g.scope ->> 'environment_id' = CAST(e.id AS text))
       AND (g.scope ->> 'project_id' IS NOT NULL OR g.scope -> 'team_ids' IS NOT NULL
            OR g.scope ->> 'environment_id' IS NOT NULL)))
ORDER BY p.name, p.id, e.name
LIMIT 5000;
