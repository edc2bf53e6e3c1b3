-- name: idempotency_find :one
-- Returns what a key was used for and its stored answer, or no row.
SELECT body_sha256, status, response FROM idempotency_keys
WHERE actor = :actor AND key = :key AND route = :route AND expires_at > :now;

-- name: idempotency_insert :count
-- Takes a key, over an expired one too; 0 when it is taken.
INSERT INTO idempotency_keys (actor, key, route, body_sha256, status, response, created_at,
                              expires_at)
VALUES (:actor, :key, :route, :body_sha256, NULL, NULL, :now, :expires_at)
ON CONFLICT (actor, key, route) DO UPDATE
SET body_sha256 = excluded.body_sha256, status = NULL, response = NULL,
    created_at = excluded.created_at, expires_at = excluded.expires_at
WHERE idempotency_keys.expires_at <= excluded.created_at;

-- name: idempotency_finish :count
-- Stores the answer a repeated call will get.
UPDATE idempotency_keys SET status = :status, response = :response
WHERE actor = :actor AND key = :key AND route = :route;

-- name: idempotency_purge :count
-- Forgets up to a limit of keys past their end.
DELETE FROM idempotency_keys
WHERE (actor, key, route) IN (
  SELECT actor, key, route FROM idempotency_keys WHERE expires_at <= :now
  ORDER BY expires_at LIMIT :limit);
