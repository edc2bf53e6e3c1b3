-- name: project_find :one
-- Returns the project with this id, or no row.
SELECT id, name, team_id, status, created_at, updated_at FROM projects WHERE id = :id;

-- name: project_lock :one
-- Holds the project until the transaction ends and returns it, or no row.
SELECT id, name, team_id, status, created_at, updated_at FROM projects WHERE id = :id;

-- name: project_insert :count
-- Creates a project.
INSERT INTO projects (id, name, team_id, status, created_at, updated_at)
VALUES (:id, :name, :team_id, :status, :now, :now);

-- name: project_rename :count
-- Changes the name of a project that still has the one that was seen.
UPDATE projects SET name = :name, updated_at = :now WHERE id = :id AND name = :expected_name;

-- name: project_set_status :count
-- Archives or restores a project; 0 when it is in that state already.
UPDATE projects SET status = :status, updated_at = :now WHERE id = :id AND status <> :status;

-- name: project_set_team :count
-- Moves a project that still stands under the team that was seen.
UPDATE projects SET team_id = :team_id, updated_at = :now
WHERE id = :id AND coalesce(CAST(team_id AS text), '') = :expected_team;
