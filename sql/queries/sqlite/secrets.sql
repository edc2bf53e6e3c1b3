-- name: secret_list :many
-- Returns a page of the catalogue in scope, newest first: a secret is there for a scope that says
-- nothing of team, project and environment, or through a binding for which all of it holds.
-- Scopes arrive as JSON, which the two databases unpack differently.
SELECT s.id, s.cluster_name, s.provider_type, s.secret_ref, s.provider_connection_id, s.labels,
       s.status, s.first_seen_at, s.last_seen_at, c.cluster_name AS connection_cluster
FROM secrets AS s
LEFT JOIN provider_connections AS c ON c.id = s.provider_connection_id
WHERE (:id IS NULL OR s.id = :id)
  AND (:cluster_name IS NULL OR s.cluster_name = :cluster_name)
  AND (:provider_type IS NULL OR s.provider_type = :provider_type)
  AND (:status IS NULL OR s.status = :status)
  AND (:ref_prefix IS NULL OR substr(s.secret_ref, 1, length(:ref_prefix)) = :ref_prefix)
  AND (:before_at IS NULL OR (s.first_seen_at, s.id) < (:before_at, :before_id))
  AND ((:project_id IS NULL AND (:everything OR EXISTS (
     SELECT 1 FROM json_each(:scopes) AS g
     WHERE (g.value ->> 'secret_ref_prefix' IS NULL
            OR substr(s.secret_ref, 1, length(g.value ->> 'secret_ref_prefix')) = g.value ->> 'secret_ref_prefix')
       AND (g.value ->> 'provider' IS NULL OR g.value ->> 'provider' = s.provider_type)
       AND (g.value ->> 'cluster' IS NULL OR g.value ->> 'cluster' = coalesce(nullif(s.cluster_name, ''), c.cluster_name))
       AND NOT (g.value ->> 'project_id' IS NOT NULL OR g.value -> 'team_ids' IS NOT NULL
            OR g.value ->> 'environment_id' IS NOT NULL))))
   OR EXISTS (
     SELECT 1
     FROM project_secrets AS b
     JOIN projects AS p ON p.id = b.project_id
     WHERE b.secret_id = s.id
       AND (:project_id IS NULL OR b.project_id = :project_id)
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
       AND (g.value ->> 'cluster' IS NULL OR g.value ->> 'cluster' = coalesce(nullif(s.cluster_name, ''), c.cluster_name))))))
ORDER BY s.first_seen_at DESC, s.id DESC
LIMIT :limit;
