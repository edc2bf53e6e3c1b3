-- name: team_find :one
-- Returns the team with this id, or no row.
SELECT id, name, parent_team_id, status, description, created_at, updated_at
FROM teams
WHERE id = :id;
