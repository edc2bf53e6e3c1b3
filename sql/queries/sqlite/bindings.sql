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
     SELECT 1 FROM json_each(:scopes) AS g
     WHERE (g.value ->> 'project_id' IS NULL OR g.value ->> 'project_id' = p.id)
       AND (g.value -> 'team_ids' IS NULL
            OR p.team_id IN (SELECT t.value FROM json_each(g.value, '$.team_ids') AS t))
       AND (g.value ->> 'environment_id' IS NULL
            OR g.value ->> 'environment_id' = b.environment_id
            OR (b.environment_id IS NULL
                AND EXISTS (SELECT 1 FROM environments AS o
                            WHERE o.project_id = p.id AND o.id = g.value ->> 'environment_id')))
       AND (g.value ->> 'secret_ref_prefix' IS NULL
            OR substr(s.secret_ref, 1, length(g.value ->> 'secret_ref_prefix')) = g.value ->> 'secret_ref_prefix')
       AND (g.value ->> 'provider' IS NULL OR g.value ->> 'provider' = s.provider_type)
       AND (g.value ->> 'cluster' IS NULL OR g.value ->> 'cluster' = coalesce(nullif(s.cluster_name, ''), c.cluster_name))))
ORDER BY b.created_at DESC, b.secret_id DESC
LIMIT :limit;
