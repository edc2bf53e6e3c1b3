-- name: setting_find :one
-- Returns the platform setting of this key, or no row.
SELECT key, value, updated_at, updated_by FROM platform_settings WHERE key = :key;

-- name: setting_lock :one
-- Returns the setting and lets nobody else change it until the transaction ends, or no row.
-- SQLite has one writer at a time, so the transaction itself is the lock.
SELECT key, value, updated_at, updated_by FROM platform_settings WHERE key = :key;

-- name: setting_list :many
-- Returns the platform settings by key.
SELECT key, value, updated_at, updated_by FROM platform_settings ORDER BY key LIMIT 100;

-- name: setting_insert :count
-- Gives a platform setting its first value unless it has one.
INSERT INTO platform_settings (key, value, updated_at, updated_by)
VALUES (:key, :value, :now, NULL)
ON CONFLICT (key) DO NOTHING;

-- name: setting_update :count
-- Changes a platform setting from the value it was seen with; 0 when it has another one by now.
UPDATE platform_settings SET value = :value, updated_at = :now, updated_by = :updated_by
WHERE key = :key AND value = :expected_value;
