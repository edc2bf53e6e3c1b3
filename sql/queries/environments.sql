-- name: environment_find_by_name :one
-- Returns the project's environment of this name, or no row.
SELECT id, name, kind FROM environments
WHERE project_id = :project_id AND name = :name AND deleted_at IS NULL;

-- name: environment_find :one
-- Returns the environment with this id unless it was deleted, or no row.
SELECT id, project_id, name, type, kind, risk_level, description, created_at, updated_at
FROM environments
WHERE id = :id AND deleted_at IS NULL;

-- name: environment_lock :one
-- Holds the environment until the transaction ends and returns it unless it was deleted, or no row.
SELECT id, project_id, name, type, kind, risk_level, description, created_at, updated_at
FROM environments
WHERE id = :id AND deleted_at IS NULL;

-- name: environment_find_latest :one
-- Returns the newest environment that had this name in the project, in any case, deleted or not.
SELECT id, name, kind, deleted_at FROM environments
WHERE project_id = :project_id AND lower(name) = lower(:name)
ORDER BY created_at DESC, id DESC
LIMIT 1;

-- name: environment_insert :count
-- Creates an environment.
INSERT INTO environments (id, project_id, name, type, kind, risk_level, description, created_at,
                          updated_at, deleted_at)
VALUES (:id, :project_id, :name, :type, :kind, :risk_level, :description, :now, :now, NULL);

-- name: environment_update :count
-- Changes what may change of an environment that was not deleted.
UPDATE environments
SET risk_level = :risk_level, description = :description, updated_at = :now
WHERE id = :id AND deleted_at IS NULL;

-- name: environment_delete :count
-- Marks an environment as deleted; its row, and its kind with it, stay.
UPDATE environments SET deleted_at = :now, updated_at = :now WHERE id = :id AND deleted_at IS NULL;

-- name: environment_usage :one
-- Returns how many bindings and how many open requests name the environment.
SELECT (SELECT count(*) FROM project_secrets AS b WHERE b.environment_id = :id) AS bindings_count,
       (SELECT count(*) FROM access_requests AS r
        WHERE r.environment_id = :id AND r.status IN ('pending', 'approved')) AS open_requests_count;

-- name: environment_any_prod :scalar
-- Returns 1 when the project has a production environment.
SELECT 1 FROM environments
WHERE project_id = :project_id AND kind = 'prod' AND deleted_at IS NULL
LIMIT 1;
