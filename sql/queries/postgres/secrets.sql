-- name: secret_lock_path :scalar
-- Lets nobody else register or bind a secret of this path until the transaction ends.
-- Rows of one path may differ in connection and cluster, so the path itself is held; SQLite has one
-- writer and needs nothing.
SELECT 1 FROM pg_advisory_xact_lock(
  hashtextextended('sb:secret:' || :provider_type || ':' || lower(:secret_ref), 0));

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
  AND (:ref_prefix IS NULL OR starts_with(s.secret_ref, :ref_prefix))
  AND (:before_at IS NULL OR (s.first_seen_at, s.id) < (:before_at, :before_id))
  AND ((:project_id IS NULL AND (:everything OR EXISTS (
     SELECT 1 FROM jsonb_array_elements(CAST(:scopes AS jsonb)) AS g (scope)
     WHERE (g.scope ->> 'secret_ref_prefix' IS NULL
            OR starts_with(s.secret_ref, g.scope ->> 'secret_ref_prefix'))
       AND (g.scope ->> 'provider' IS NULL OR g.scope ->> 'provider' = s.provider_type)
       AND (g.scope ->> 'cluster' IS NULL OR g.scope ->> 'cluster' = coalesce(nullif(s.cluster_name, ''), c.cluster_name))
       AND NOT (g.scope ->> 'project_id' IS NOT NULL OR g.scope -> 'team_ids' IS NOT NULL
            OR g.scope ->> 'environment_id' IS NOT NULL))))
   OR EXISTS (
     SELECT 1
     FROM project_secrets AS b
     JOIN projects AS p ON p.id = b.project_id
     WHERE b.secret_id = s.id
       AND (:project_id IS NULL OR b.project_id = :project_id)
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
       AND (g.scope ->> 'cluster' IS NULL OR g.scope ->> 'cluster' = coalesce(nullif(s.cluster_name, ''), c.cluster_name))))))
ORDER BY s.first_seen_at DESC, s.id DESC
LIMIT :limit;
