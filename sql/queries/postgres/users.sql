-- name: user_hold :one
-- Returns the account with this id and keeps others from changing it until the end, or no row.
-- The row lock serialises sign-ins with resets; SQLite has one writer and needs none.
SELECT id, email, password_hash, display_name, disabled, failed_login_count, locked_until,
       must_change_password, created_at, updated_at
FROM local_users
WHERE id = :id
FOR NO KEY UPDATE;
