-- name: binding_lock :one
-- Holds the binding until the transaction ends and returns it, or no row.
-- The row lock serialises changes; SQLite has one writer and needs none.
SELECT project_id, secret_id, environment_id, allowed_keys, allowed_ops
FROM project_secrets
WHERE project_id = :project_id AND secret_id = :secret_id
FOR UPDATE;

-- name: binding_list :many
-- Returns a page of a project's bindings in scope, newest first, each with its secret.
-- Scopes arrive as JSON, which the two databases unpack differently.
SELECT b.project_id, b.secret_id, b.environment_id, b.allowed_keys, b.allowed_ops, b.created_at,
       b.updated_at, b.created_by, s.cluster_name, s.provider_type, s.secret_ref,
       s.provider_connection_id, s.labels, s.status, p.team_id, c.cluster_name AS connection_cluster,
       CASE WHEN s.became_prod_at IS NULL THEN 'non_prod' ELSE 'prod' END AS kind
FROM project_secrets AS b
JOIN projects AS p ON p.id = b.project_id
JOIN secrets AS s ON s.id = b.secret_id
LEFT JOIN provider_connections AS c ON c.id = s.provider_connection_id
WHERE b.project_id = :project_id
  AND (:secret_id IS NULL OR b.secret_id = :secret_id)
  AND (:environment_id IS NULL OR b.environment_id = :environment_id)
  AND (:served_id IS NULL OR b.environment_id IS NULL OR b.environment_id = :served_id)
  AND (:before_at IS NULL OR (b.created_at, b.secret_id) < (:before_at, :before_id))
  AND (:everything OR EXISTS (
     SELECT 1 FROM jsonb_array_elements(CAST(:scopes AS jsonb)) AS g (scope)
     WHERE (g.scope ->> 'project_id' IS NULL OR g.scope ->> 'project_id' = CAST(p.id AS text))
       AND (g.scope -> 'team_ids' IS NULL OR g.scope -> 'team_ids' @> to_jsonb(CAST(p.team_id AS text)))
       AND (g.scope ->> 'environment_id' IS NULL
            OR g.scope ->> 'environment_id' = CAST(b.environment_id AS text)
            OR (b.environment_id IS NULL
                AND EXISTS (SELECT 1 FROM environments AS o
                            WHERE o.project_id = p.id AND CAST(o.id AS text) = g.scope ->> 'environment_id')))
       AND (g.scope ->> 'secret_ref_prefix' IS NULL
            OR starts_with(s.secret_ref, g.scope ->> 'secret_ref_prefix'))
       AND (g.scope ->> 'provider' IS NULL OR g.scope ->> 'provider' = s.provider_type)
       AND (g.scope ->> 'cluster' IS NULL OR g.scope ->> 'cluster' = coalesce(nullif(s.cluster_name, ''), c.cluster_name))))
ORDER BY b.created_at DESC, b.secret_id DESC
LIMIT :limit;
