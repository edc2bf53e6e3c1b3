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
            OR g.value ->> 'environment_id' IS NOT NULL))))
ORDER BY e.created_at DESC, e.id DESC
LIMIT :limit;
