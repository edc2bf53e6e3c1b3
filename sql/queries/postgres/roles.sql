-- name: role_lock :one
-- Returns the role of this name and keeps others from deciding about it until the end.
SELECT id FROM roles WHERE name = :name FOR UPDATE;
