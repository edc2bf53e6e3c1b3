-- name: connection_find :one
-- Returns the provider connection with this id, or no row.
SELECT id, name, type, auth_method, scope, status, cluster_name, description, created_at,
       updated_at
FROM provider_connections
WHERE id = :id;

-- name: connection_list_active_of_type :many
-- Returns up to two active connections of a type that lead to the cluster, or anywhere where none is
-- asked for: enough to tell none, one and several apart.
SELECT id, cluster_name FROM provider_connections
WHERE type = :type AND status = 'active'
  AND (:cluster_name IS NULL OR coalesce(cluster_name, '') IN ('', :cluster_name))
ORDER BY id
LIMIT 2;

-- name: connection_list_of_type :many
-- Returns up to two connections of a type that lead to the cluster, or anywhere where none is asked
-- for, in whatever state they are.
SELECT id FROM provider_connections
WHERE type = :type
  AND (:cluster_name IS NULL OR coalesce(cluster_name, '') IN ('', :cluster_name))
ORDER BY id
LIMIT 2;

-- name: connection_list :many
-- Returns a page of provider connections, newest first.
SELECT id, name, type, auth_method, scope, status, cluster_name, description, created_at,
       updated_at
FROM provider_connections
WHERE :before_at IS NULL OR created_at < :before_at OR (created_at = :before_at AND id < :before_id)
ORDER BY created_at DESC, id DESC
LIMIT :limit;

-- name: connection_insert :count
-- Creates a provider connection; it holds routing facts, never a credential.
INSERT INTO provider_connections (id, name, type, auth_method, scope, status, cluster_name,
                                  description, created_at, updated_at)
VALUES (:id, :name, :type, :auth_method, :scope, 'active', :cluster_name, :description, :now, :now);
