-- name: project_list_with_environments :many
-- Returns the projects in scope with their environments, one row each.
-- Scopes arrive as JSON, which the two databases unpack differently.
SELECT p.id, p.name, p.status, e.id AS environment_id, e.name AS environment_name,
       e.kind AS environment_kind, e.risk_level
FROM projects AS p
LEFT JOIN environments AS e ON e.project_id = p.id AND e.deleted_at IS NULL
WHERE :everything
   OR EXISTS (
     SELECT 1 FROM jsonb_array_elements(CAST(:scopes AS jsonb)) AS g (scope)
     WHERE (g.scope ->> 'project_id' IS NULL OR g.scope ->> 'project_id' = CAST(p.id AS text))
       AND (g.scope -> 'team_ids' IS NULL OR g.scope -> 'team_ids' @> to_jsonb(CAST(p.team_id AS text)))
       AND (g.scope ->> 'project_id' IS NOT NULL OR g.scope -> 'team_ids' IS NOT NULL))
ORDER BY p.name, p.id, e.name
LIMIT 5000;
