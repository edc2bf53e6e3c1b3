-- name: user_find_by_email :one
-- Returns the account with this address (already lower-case), or no row.
SELECT id, email, password_hash, display_name, disabled, failed_login_count, locked_until,
       must_change_password, updated_at
FROM local_users
WHERE email = :email;

-- name: user_find :one
-- Returns the account with this id, or no row.
SELECT id, email, password_hash, display_name, disabled, failed_login_count, locked_until,
       must_change_password, created_at, updated_at
FROM local_users
WHERE id = :id;

-- name: user_hold :one
-- Returns the account with this id and keeps others from changing it until the end, or no row.
SELECT id, email, password_hash, display_name, disabled, failed_login_count, locked_until,
       must_change_password, created_at, updated_at
FROM local_users
WHERE id = :id;

-- name: user_list :many
-- Returns a page of the accounts whose address begins like this, newest first.
SELECT id, email, display_name, disabled, failed_login_count, locked_until,
       must_change_password, created_at, updated_at
FROM local_users
WHERE (:email IS NULL OR substr(email, 1, length(CAST(:email AS text))) = :email)
  AND (:disabled IS NULL OR disabled = :disabled)
  AND (:before_at IS NULL OR (created_at, id) < (:before_at, :before_id))
ORDER BY created_at DESC, id DESC
LIMIT :limit;

-- name: user_any :scalar
-- Returns 1 when at least one account exists.
SELECT 1 FROM local_users LIMIT 1;

-- name: user_insert :count
-- Creates an account.
INSERT INTO local_users (id, email, password_hash, display_name, disabled, failed_login_count,
                         locked_until, must_change_password, created_at, updated_at)
VALUES (:id, :email, :password_hash, :display_name, :disabled, 0, NULL, :must_change_password,
        :now, :now);

-- name: user_count_failure :one
-- Adds one failed sign-in to an account that is not locked and returns the new count.
UPDATE local_users
SET failed_login_count = CASE WHEN locked_until IS NULL THEN failed_login_count + 1 ELSE 1 END,
    locked_until = NULL
WHERE id = :id AND (locked_until IS NULL OR locked_until <= :now)
RETURNING failed_login_count;

-- name: user_lock :count
-- Locks the account until the given time.
UPDATE local_users SET locked_until = :locked_until WHERE id = :id;

-- name: user_clear_failures :count
-- Forgets failed sign-ins and any lapsed lock, where there are some.
UPDATE local_users
SET failed_login_count = 0, locked_until = NULL
WHERE id = :id AND (failed_login_count <> 0 OR locked_until IS NOT NULL);

-- name: user_set_password :count
-- Replaces the password hash if it is still the one that was checked.
UPDATE local_users
SET password_hash = :password_hash, must_change_password = :must_change_password, updated_at = :now
WHERE id = :id AND password_hash = :expected_hash;

-- name: user_reset_password :count
-- Replaces the password by one that must be changed, and forgets failures and any lock.
UPDATE local_users
SET password_hash = :password_hash, must_change_password = :must_change_password,
    failed_login_count = 0, locked_until = NULL, updated_at = :now
WHERE id = :id;

-- name: user_set_disabled :count
-- Switches the account off or on; 0 when it is so already.
UPDATE local_users
SET disabled = :disabled, updated_at = :now
WHERE id = :id AND disabled <> :disabled;

-- name: user_update :count
-- Changes the address and the name of an account.
UPDATE local_users
SET email = :email, display_name = :display_name, updated_at = :now
WHERE id = :id;

-- name: user_rehash_password :count
-- Keeps the same password under today's parameters, if its hash is still the one that was checked.
UPDATE local_users
SET password_hash = :password_hash
WHERE id = :id AND password_hash = :expected_hash;

-- name: user_teams :many
-- Returns the teams this person is a direct member of.
SELECT t.id, t.name, t.parent_team_id, t.status
FROM team_members AS m
JOIN teams AS t ON t.id = m.team_id
WHERE m.user_id = :user_id
ORDER BY t.name, t.id
LIMIT 1000;
