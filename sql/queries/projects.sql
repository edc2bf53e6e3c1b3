-- name: project_find :one
-- Returns the project with this id, or no row.
SELECT id, name, team_id, status FROM projects WHERE id = :id;

-- name: environment_find_by_name :one
-- Returns the project's environment of this name, or no row.
SELECT id, name, kind FROM environments
WHERE project_id = :project_id AND name = :name AND deleted_at IS NULL;

-- name: environment_find :one
-- Returns the environment with this id unless it was deleted, or no row.
SELECT id, project_id, name, type, kind, risk_level, description, created_at, updated_at
FROM environments
WHERE id = :id AND deleted_at IS NULL;

-- name: binding_list_for_ref :many
-- Returns the bindings through which a project reaches this secret, on any cluster.
SELECT b.secret_id, b.environment_id, b.allowed_keys, b.allowed_ops, s.cluster_name,
       s.provider_connection_id
FROM project_secrets AS b
JOIN secrets AS s ON s.id = b.secret_id
WHERE b.project_id = :project_id
  AND s.provider_type = :provider_type
  AND s.secret_ref = :secret_ref
ORDER BY s.cluster_name, s.id
LIMIT 100;

-- name: binding_find :one
-- Returns the binding of one secret to one project as it is now, or no row.
SELECT secret_id, environment_id, allowed_keys, allowed_ops
FROM project_secrets
WHERE project_id = :project_id AND secret_id = :secret_id;
