-- name: role_find_by_name :one
-- Returns the role with this name, or no row.
SELECT id, name, permissions, is_system FROM roles WHERE name = :name;

-- name: role_find :one
-- Returns the role with this id, or no row.
SELECT id, name, description, permissions, is_system, created_at, updated_at
FROM roles
WHERE id = :id;

-- name: role_list :many
-- Returns a page of the roles, newest first: every one, or those whose ids are in the text.
SELECT id, name, description, permissions, is_system, created_at, updated_at
FROM roles
WHERE (:before_at IS NULL OR (created_at, id) < (:before_at, :before_id))
  AND (:everything
       OR replace(CAST(:held AS text), CAST(id AS text), '') <> CAST(:held AS text))
ORDER BY created_at DESC, id DESC
LIMIT :limit;

-- name: role_insert :count
-- Creates a role unless one of this name is there.
INSERT INTO roles (id, name, description, permissions, is_system, created_at, updated_at)
VALUES (:id, :name, :description, :permissions, :is_system, :now, :now)
ON CONFLICT (name) DO NOTHING;

-- name: role_update :count
-- Changes a role's name, description and permissions.
UPDATE roles
SET name = :name, description = :description, permissions = :permissions, updated_at = :now
WHERE id = :id;

-- name: role_delete :count
-- Deletes a role that is not the system's.
DELETE FROM roles WHERE id = :id AND NOT is_system;

-- name: role_uses :one
-- Returns how many grants, workflows and open requests name the role.
SELECT (SELECT count(*) FROM user_roles WHERE role_id = :id) AS grants,
       (SELECT count(*) FROM workflow_definitions WHERE approver_role_id = :id) AS workflows,
       (SELECT count(*) FROM access_requests
        WHERE snap_approver_role_id = :id AND status IN ('pending', 'approved')) AS requests;

-- name: role_lock :one
-- Returns the role of this name and keeps others from deciding about it until the end.
SELECT id FROM roles WHERE name = :name;

-- name: role_hold :one
-- Returns the role of this id and keeps others from changing or naming it until the end, or no row.
SELECT id, name, description, permissions, is_system, created_at, updated_at
FROM roles
WHERE id = :id;
