-- name: setting_lock :one
-- Returns the setting and lets nobody else change it until the transaction ends, or no row.
-- The row lock serialises changes; SQLite has one writer and needs none.
SELECT key, value, updated_at, updated_by FROM platform_settings WHERE key = :key FOR UPDATE;
