-- name: binding_list_for_ref :many
-- Returns the bindings through which a project reaches this secret, on any cluster.
SELECT b.secret_id, b.environment_id, b.allowed_keys, b.allowed_ops, s.cluster_name,
       s.provider_connection_id
FROM project_secrets AS b
JOIN secrets AS s ON s.id = b.secret_id
WHERE b.project_id = :project_id
  AND s.provider_type = :provider_type
  AND s.secret_ref = :secret_ref
ORDER BY s.cluster_name, s.id
LIMIT 100;

-- name: binding_lock :one
-- Holds the binding until the transaction ends and returns it, or no row.
SELECT project_id, secret_id, environment_id, allowed_keys, allowed_ops
FROM project_secrets
WHERE project_id = :project_id AND secret_id = :secret_id;

-- name: binding_standing :one
-- Returns what a request rests on as it is now: project, environment, binding and connection, and
-- whether its requester's account is switched off.
SELECT r.id, r.type, r.target_keys, r.project_id, r.environment_id, r.secret_id, r.requester_id,
       r.target_secret_ref, r.target_provider_config, r.snap_environment_kind, r.cluster_name,
       u.disabled, p.team_id,
       p.status AS project_status, e.deleted_at AS environment_deleted_at,
       b.secret_id AS bound_secret_id, b.environment_id AS bound_environment_id, b.allowed_keys,
       b.allowed_ops, r.target_provider_type, r.provider_connection_id,
       s.provider_connection_id AS bound_connection_id, s.cluster_name AS bound_cluster,
       c.status AS connection_status
FROM access_requests AS r
JOIN local_users AS u ON u.id = r.requester_id
LEFT JOIN projects AS p ON p.id = r.project_id
LEFT JOIN environments AS e ON e.id = r.environment_id
LEFT JOIN project_secrets AS b ON b.project_id = r.project_id AND b.secret_id = r.secret_id
LEFT JOIN secrets AS s ON s.id = b.secret_id
LEFT JOIN provider_connections AS c ON c.id = r.provider_connection_id
WHERE r.id = :request_id;

-- name: binding_list_elsewhere :many
-- Returns up to so many bindings, but the one meant, to what may be the same secret: of this path,
-- behind the same connection or on a cluster that is not known to be another one. What is bound
-- without a connection may turn out to be behind any.
SELECT b.project_id, b.environment_id, p.team_id, s.provider_type, s.secret_ref,
       coalesce(nullif(s.cluster_name, ''), c.cluster_name) AS cluster_name
FROM secrets AS s
JOIN project_secrets AS b ON b.secret_id = s.id
JOIN projects AS p ON p.id = b.project_id
LEFT JOIN provider_connections AS c ON c.id = s.provider_connection_id
WHERE s.provider_type = :provider_type
  AND (s.secret_ref = :secret_ref
       OR (:provider_type = 'azure-kv' AND lower(s.secret_ref) = lower(:secret_ref)))
  AND (b.project_id <> :project_id OR :but_secret_id IS NULL OR b.secret_id <> :but_secret_id)
  AND (s.provider_connection_id = :connection_id
       OR s.provider_connection_id IS NULL
       OR :connection_id IS NULL
       OR :cluster_name = ''
       OR coalesce(nullif(s.cluster_name, ''), c.cluster_name, '') IN ('', :cluster_name))
ORDER BY b.project_id, b.secret_id
LIMIT :limit;

-- name: binding_count_prod :scalar
-- Returns how many bindings give the secret to a production environment by name.
SELECT count(*) FROM project_secrets AS b
JOIN environments AS e ON e.id = b.environment_id
WHERE b.secret_id = :secret_id AND e.kind = 'prod';

-- name: binding_insert :count
-- Binds a secret to a project; 0 when it is bound already.
INSERT INTO project_secrets (project_id, secret_id, environment_id, allowed_keys, allowed_ops,
                             created_at, updated_at, created_by)
VALUES (:project_id, :secret_id, :environment_id, :allowed_keys, :allowed_ops, :now, :now,
        :created_by)
ON CONFLICT (project_id, secret_id) DO NOTHING;

-- name: binding_update :count
-- Changes what a binding allows.
UPDATE project_secrets
SET environment_id = :environment_id, allowed_keys = :allowed_keys, allowed_ops = :allowed_ops,
    updated_at = :now
WHERE project_id = :project_id AND secret_id = :secret_id;

-- name: binding_delete :count
-- Ends a binding; 0 when there is none.
DELETE FROM project_secrets WHERE project_id = :project_id AND secret_id = :secret_id;
