-- name: grant_insert :count
-- Gives a user a role at a scope.
INSERT INTO user_roles (id, user_id, role_id, scope, granted_by, granted_at, expires_at, reason)
VALUES (:id, :user_id, :role_id, :scope, :granted_by, :now, :expires_at, :reason);

-- name: grant_find_same :scalar
-- Returns 1 when the user holds the role at exactly this scope now.
SELECT 1
FROM user_roles
WHERE user_id = :user_id AND role_id = :role_id AND scope = :scope
  AND (expires_at IS NULL OR expires_at > :now)
LIMIT 1;

-- name: grant_count_in_force :scalar
-- Returns how many grants of the user are in force, also for what is gone.
SELECT count(*) FROM user_roles WHERE user_id = :user_id AND (expires_at IS NULL OR expires_at > :now);

-- name: grant_update :count
-- Changes the end and the reason of a grant that is in force.
UPDATE user_roles
SET expires_at = :expires_at, reason = :reason
WHERE id = :id AND (expires_at IS NULL OR expires_at > :now);

-- name: grant_delete :count
-- Takes a grant back.
DELETE FROM user_roles WHERE id = :id;
