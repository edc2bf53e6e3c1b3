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
       OR p.team_id IN (SELECT j.value FROM json_each('[' || substr(:whole_teams, 2, length(:whole_teams) - 2) || ']') AS j)
       OR p.id IN (SELECT j.value FROM json_each('[' || substr(:whole_projects, 2, length(:whole_projects) - 2) || ']') AS j)
       OR p.id IN (SELECT o.project_id FROM environments AS o
                   WHERE o.id IN (SELECT j.value FROM json_each('[' || substr(:whole_environments, 2, length(:whole_environments) - 2) || ']') AS j))
       OR (:narrow AND EXISTS (
     SELECT 1 FROM json_each(:scopes) AS g
     WHERE (g.value ->> 'project_id' IS NULL OR g.value ->> 'project_id' = p.id)
       AND (g.value -> 'team_ids' IS NULL
            OR p.team_id IN (SELECT t.value FROM json_each(g.value, '$.team_ids') AS t))
       AND (g.value ->> 'environment_id' IS NULL
            OR EXISTS (SELECT 1 FROM environments AS o
                       WHERE o.project_id = p.id AND o.id = g.value ->> 'environment_id'))
       AND (g.value ->> 'project_id' IS NOT NULL OR g.value -> 'team_ids' IS NOT NULL
            OR g.value ->> 'environment_id' IS NOT NULL))))
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
   OR p.team_id IN (SELECT j.value FROM json_each('[' || substr(:whole_teams, 2, length(:whole_teams) - 2) || ']') AS j)
   OR p.id IN (SELECT j.value FROM json_each('[' || substr(:whole_projects, 2, length(:whole_projects) - 2) || ']') AS j)
   OR e.id IN (SELECT j.value FROM json_each('[' || substr(:whole_environments, 2, length(:whole_environments) - 2) || ']') AS j)
   OR (:narrow AND EXISTS (
     SELECT 1 FROM json_each(:scopes) AS g
     WHERE (g.value ->> 'project_id' IS NULL OR g.value ->> 'project_id' = p.id)
       AND (g.value -> 'team_ids' IS NULL
            OR p.team_id IN (SELECT t.value FROM json_each(g.value, '$.team_ids') AS t))
       AND (g.value ->> 'environment_id' IS NULL OR g.value ->> 'environment_id' = e.id)
       AND (g.value ->> 'project_id' IS NOT NULL OR g.value -> 'team_ids' IS NOT NULL
            OR g.value ->> 'environment_id' IS NOT NULL)))
ORDER BY p.name, p.id, e.name
LIMIT 5000;
