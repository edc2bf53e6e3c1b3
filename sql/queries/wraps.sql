-- name: wrap_insert :count
-- Stores one sealed value of a request.
INSERT INTO secret_wraps (id, request_id, environment_id, issued_via, key_name, encrypted_value,
                          nonce, data_key_ciphertext, kms_key_id, algorithm, content_hmac,
                          byte_length, created_at, expires_at)
VALUES (:id, :request_id, :environment_id, 'request', :key_name, :encrypted_value, :nonce,
        :data_key_ciphertext, :kms_key_id, :algorithm, :content_hmac, :byte_length, :now,
        :expires_at);

-- name: wrap_put :count
-- Stores a value for (request, key), replacing one nobody has seen; 0 when it was seen already.
INSERT INTO secret_wraps (id, request_id, environment_id, issued_via, key_name, encrypted_value,
                          nonce, data_key_ciphertext, kms_key_id, algorithm, content_hmac,
                          byte_length, created_at, expires_at)
VALUES (:id, :request_id, :environment_id, 'request', :key_name, :encrypted_value, :nonce,
        :data_key_ciphertext, :kms_key_id, :algorithm, :content_hmac, :byte_length, :now,
        :expires_at)
ON CONFLICT (request_id, key_name) DO UPDATE
SET id = excluded.id, encrypted_value = excluded.encrypted_value, nonce = excluded.nonce,
    data_key_ciphertext = excluded.data_key_ciphertext, kms_key_id = excluded.kms_key_id,
    algorithm = excluded.algorithm, content_hmac = excluded.content_hmac,
    byte_length = excluded.byte_length, created_at = excluded.created_at,
    expires_at = excluded.expires_at
WHERE secret_wraps.consumed_at IS NULL;

-- name: wrap_find :one
-- Returns a wrap with its ciphertext, or no row.
SELECT id, request_id, key_name, encrypted_value, nonce, data_key_ciphertext, kms_key_id,
       algorithm, content_hmac, byte_length, created_at, expires_at, consumed_at
FROM secret_wraps
WHERE id = :id;

-- name: wrap_find_by_key :one
-- Returns the wrap of one key of a request, without its ciphertext, or no row.
SELECT id, request_id, key_name, content_hmac, byte_length, expires_at, consumed_at
FROM secret_wraps
WHERE request_id = :request_id AND key_name = :key_name;

-- name: wrap_count_others :scalar
-- Returns how many wraps a request has for keys other than this one.
SELECT count(*) FROM secret_wraps WHERE request_id = :request_id AND key_name <> :key_name;

-- name: wrap_list :many
-- Returns a request's wraps without values, in key order.
SELECT id, key_name, byte_length, created_at, expires_at, consumed_at
FROM secret_wraps
WHERE request_id = :request_id
ORDER BY key_name, id
LIMIT 1000;

-- name: wrap_consume_by_user :count
-- Spends the wrap for the person who reveals it and erases it; 0 when it was spent or has expired.
UPDATE secret_wraps
SET consumed_at = :now, consumed_by_user = :user_id, encrypted_value = :erased,
    data_key_ciphertext = :erased
WHERE id = :id AND consumed_at IS NULL AND expires_at > :now;

-- name: wrap_consume_by_agent :count
-- Spends and erases every unspent wrap of a request for the agent that has written the values.
UPDATE secret_wraps
SET consumed_at = :now, consumed_by_agent = :agent_id, encrypted_value = :erased,
    data_key_ciphertext = :erased
WHERE request_id = :request_id AND consumed_at IS NULL;

-- name: wrap_expire_at :count
-- Moves the end of every unspent, unexpired wrap of a request.
UPDATE secret_wraps SET expires_at = :expires_at
WHERE request_id = :request_id AND consumed_at IS NULL AND expires_at > :now;

-- name: wrap_end_by :count
-- Brings forward the end of every unspent wrap of a request that would live longer.
UPDATE secret_wraps SET expires_at = :expires_at
WHERE request_id = :request_id AND consumed_at IS NULL AND expires_at > :expires_at;

-- name: wrap_count_unspent :scalar
-- Returns how many wraps of a request can still be spent.
SELECT count(*) FROM secret_wraps
WHERE request_id = :request_id AND consumed_at IS NULL AND expires_at > :now;

-- name: wrap_purge :count
-- Deletes up to a limit of wraps past their end, oldest first. A spent one stays while its job could
-- still post: without its row the same value could be stored, and seen, a second time.
DELETE FROM secret_wraps
WHERE id IN (SELECT w.id FROM secret_wraps AS w
             WHERE w.expires_at <= :now
               AND (w.consumed_at IS NULL
                    OR NOT EXISTS (SELECT 1 FROM access_requests AS r
                                   WHERE r.id = w.request_id AND r.status = 'approved'))
             ORDER BY w.expires_at, w.id
             LIMIT :limit);

-- name: wrap_count_live :one
-- Returns how many wraps can still be opened.
SELECT count(*) AS wraps FROM secret_wraps WHERE consumed_at IS NULL AND expires_at > :now;
