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
                     status, first_seen_at, last_seen_at, became_prod_at)
VALUES (:id, :cluster_name, :provider_type, :secret_ref, :provider_connection_id, :labels, 'present',
        :now, :now, NULL);

-- name: secret_set_prod :count
-- Makes a secret production's; 0 when it is already.
UPDATE secrets SET became_prod_at = :now WHERE id = :id AND became_prod_at IS NULL;

-- name: secret_clear_prod :count
-- Makes a secret production's no more; 0 when it is not.
UPDATE secrets SET became_prod_at = NULL WHERE id = :id AND became_prod_at IS NOT NULL;

-- name: secret_list_everywhere :many
-- Returns up to a thousand secrets that are not production's yet and that the project has bound
-- without an environment, so that they serve every one of its environments.
SELECT s.id FROM secrets AS s
JOIN project_secrets AS b ON b.secret_id = s.id
WHERE b.project_id = :project_id AND b.environment_id IS NULL AND s.became_prod_at IS NULL
ORDER BY s.id
LIMIT 1000;
