-- name: role_lock :one
-- Returns the role of this name and keeps others from deciding about it until the end.
SELECT id FROM roles WHERE name = :name FOR UPDATE;

-- name: administrator_any :scalar
-- Returns 1 while somebody enabled, whose password is their own, holds both root permissions through
-- unscoped, endless grants.
-- Permissions are JSON, which the two databases search differently.
SELECT 1
FROM local_users AS u
WHERE NOT u.disabled
  AND NOT u.must_change_password
  AND EXISTS (SELECT 1 FROM user_roles AS ur JOIN roles AS r ON r.id = ur.role_id
              WHERE ur.user_id = u.id AND ur.scope = '{}' AND ur.expires_at IS NULL
                AND r.permissions @> '["role.edit"]')
  AND EXISTS (SELECT 1 FROM user_roles AS ur JOIN roles AS r ON r.id = ur.role_id
              WHERE ur.user_id = u.id AND ur.scope = '{}' AND ur.expires_at IS NULL
                AND r.permissions @> '["user_role.edit"]')
LIMIT 1;

-- name: role_hold :one
-- Returns the role of this id and keeps others from changing or naming it until the end, or no row.
-- The row lock serialises; SQLite has one writer and needs none.
SELECT id, name, description, permissions, is_system, created_at, updated_at
FROM roles
WHERE id = :id
FOR UPDATE;
