-- name: project_list_with_environments :many
-- Returns the projects in scope with their environments, one row each.
-- Scopes arrive as JSON, which the two databases unpack differently.
SELECT p.id, p.name, p.status, e.id AS environment_id, e.name AS environment_name,
       e.kind AS environment_kind, e.risk_level
FROM projects AS p
LEFT JOIN environments AS e ON e.project_id = p.id AND e.deleted_at IS NULL
WHERE :everything
   OR EXISTS (
     SELECT 1 FROM json_each(:scopes) AS g
     WHERE (g.value ->> 'project_id' IS NULL OR g.value ->> 'project_id' = p.id)
       AND (g.value -> 'team_ids' IS NULL
            OR p.team_id IN (SELECT t.value FROM json_each(g.value, '$.team_ids') AS t))
       AND (g.value ->> 'project_id' IS NOT NULL OR g.value -> 'team_ids' IS NOT NULL))
ORDER BY p.name, p.id, e.name
LIMIT 5000;
