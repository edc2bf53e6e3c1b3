-- name: role_find_by_name :one
-- Returns the role with this name, or no row.
SELECT id, name, permissions, is_system FROM roles WHERE name = :name;

-- name: role_insert :count
-- Creates a role unless one of this name is there.
INSERT INTO roles (id, name, description, permissions, is_system, created_at, updated_at)
VALUES (:id, :name, :description, :permissions, :is_system, :now, :now)
ON CONFLICT (name) DO NOTHING;

-- name: role_lock :one
-- Returns the role of this name and keeps others from deciding about it until the end.
SELECT id FROM roles WHERE name = :name;
