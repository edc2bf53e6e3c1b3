-- name: session_find_live :one
-- Returns the live session behind this token hash with its user, or no row.
SELECT s.id AS session_id, s.user_id, s.expires_at, s.idle_expires_at, s.last_mfa_at,
       u.email, u.display_name, u.must_change_password
FROM sessions AS s
JOIN local_users AS u ON u.id = s.user_id
WHERE s.token_hash = :token_hash
  AND s.revoked_at IS NULL
  AND s.expires_at > :now
  AND s.idle_expires_at > :now
  AND NOT u.disabled;

-- name: session_is_live :scalar
-- Returns 1 while the session opens something and its person is not disabled, else 0.
SELECT count(*)
FROM sessions AS s
JOIN local_users AS u ON u.id = s.user_id
WHERE s.id = :id
  AND s.revoked_at IS NULL
  AND s.expires_at > :now
  AND s.idle_expires_at > :now
  AND NOT u.disabled;

-- name: session_insert :count
-- Creates a session; only the hash of its token is stored.
INSERT INTO sessions (id, user_id, token_hash, created_at, expires_at, idle_expires_at,
                      last_mfa_at, revoked_at, ip, user_agent)
VALUES (:id, :user_id, :token_hash, :now, :expires_at, :idle_expires_at, NULL, NULL, :ip,
        :user_agent);

-- name: session_touch :count
-- Slides the idle end of a live session forward, never past its absolute end.
UPDATE sessions
SET idle_expires_at = CASE WHEN expires_at < :idle_expires_at THEN expires_at
                           ELSE :idle_expires_at END
WHERE id = :id AND revoked_at IS NULL;

-- name: session_revoke :count
-- Ends the session; 0 when it had ended before.
UPDATE sessions SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL;

-- name: session_revoke_others :count
-- Ends every live session of the user except one.
UPDATE sessions
SET revoked_at = :now
WHERE user_id = :user_id AND id <> :keep_id AND revoked_at IS NULL AND expires_at > :now;

-- name: session_revoke_all :count
-- Ends every live session of the user, also one that a call on its way may still keep from idling.
UPDATE sessions
SET revoked_at = :now
WHERE user_id = :user_id AND revoked_at IS NULL AND expires_at > :now;

-- name: session_revoke_of :count
-- Ends this live session if it is that user's; 0 when there is no such one.
UPDATE sessions
SET revoked_at = :now
WHERE id = :id AND user_id = :user_id AND revoked_at IS NULL AND expires_at > :now
  AND idle_expires_at > :now;

-- name: session_list :many
-- Returns a page of the user's live sessions, newest first; never a token or its hash.
SELECT id, created_at, expires_at, idle_expires_at, ip, user_agent
FROM sessions
WHERE user_id = :user_id AND revoked_at IS NULL AND expires_at > :now AND idle_expires_at > :now
  AND (:before_at IS NULL OR (created_at, id) < (:before_at, :before_id))
ORDER BY created_at DESC, id DESC
LIMIT :limit;

-- name: session_purge :count
-- Deletes up to a limit of sessions whose absolute end lies before that, oldest first.
DELETE FROM sessions
WHERE id IN (SELECT s.id FROM sessions AS s
             WHERE s.expires_at <= :ended_before
             ORDER BY s.expires_at, s.id
             LIMIT :limit);
