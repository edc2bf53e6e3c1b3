-- name: secret_lock_path :scalar
-- Lets nobody else register or bind a secret of this path until the transaction ends.
SELECT 1 WHERE :provider_type <> '' AND :secret_ref <> '';

-- name: secret_find_identity :one
-- Returns the secret of exactly this place and path, or no row.
SELECT id, cluster_name, provider_type, secret_ref, provider_connection_id, labels, status,
       first_seen_at, last_seen_at
FROM secrets
WHERE provider_type = :provider_type AND secret_ref = :secret_ref AND cluster_name = :cluster_name
  AND coalesce(CAST(provider_connection_id AS text), '') = :connection_key;

-- name: secret_insert :count
-- Registers a secret in the catalogue; its value stays where it is.
INSERT INTO secrets (id, cluster_name, provider_type, secret_ref, provider_connection_id, labels,
                     status, first_seen_at, last_seen_at)
VALUES (:id, :cluster_name, :provider_type, :secret_ref, :provider_connection_id, :labels, 'present',
        :now, :now);
