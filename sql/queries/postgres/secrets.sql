-- name: secret_lock_path :scalar
-- Lets nobody else register or bind a secret of this path until the transaction ends.
-- Rows of one path may differ in connection and cluster, so the path itself is held; SQLite has one
-- writer and needs nothing.
SELECT 1 FROM pg_advisory_xact_lock(
  hashtextextended('sb:secret:' || :provider_type || ':' || lower(:secret_ref), 0));

-- name: secret_list :many
-- Returns a page of the catalogue in scope, newest first: a secret is there for a scope that says
-- nothing of team, project and environment, or through a binding for which all of it holds.
-- Places that are covered whole arrive as lists, scopes that say more as JSON, which the two databases unpack
-- differently; the places any of them is for come as lists too, for the indexes, unless some are for no place or
-- for many.
SELECT s.id, s.cluster_name, s.provider_type, s.secret_ref, s.provider_connection_id, s.labels,
       CASE WHEN s.became_prod_at IS NULL THEN 'non_prod' ELSE 'prod' END AS kind, s.status, s.first_seen_at,
       s.last_seen_at, c.cluster_name AS connection_cluster
FROM secrets AS s
LEFT JOIN provider_connections AS c ON c.id = s.provider_connection_id
WHERE (:id IS NULL OR s.id = :id)
  AND (:cluster_name IS NULL OR s.cluster_name = :cluster_name)
  AND (:provider_type IS NULL OR s.provider_type = :provider_type)
  AND (:status IS NULL OR s.status = :status)
  AND (:ref_prefix IS NULL OR starts_with(s.secret_ref, :ref_prefix))
  AND (:before_at IS NULL OR (s.first_seen_at, s.id) < (:before_at, :before_id))
  AND (:labels IS NULL OR s.labels @> CAST(:labels AS jsonb))
  AND (:anywhere OR s.id = ANY (ARRAY(
     SELECT b.secret_id
     FROM project_secrets AS b
     JOIN projects AS p ON p.id = b.project_id
     WHERE (:id IS NULL OR b.secret_id = :id)
       AND (p.team_id = ANY (CAST(:team_ids AS uuid[]))
            OR p.id = ANY (CAST(:project_ids AS uuid[]))
            OR b.environment_id = ANY (CAST(:environment_ids AS uuid[]))
            OR (b.environment_id IS NULL AND p.id = ANY (ARRAY(
                  SELECT o.project_id FROM environments AS o
                  WHERE o.id = ANY (CAST(:environment_ids AS uuid[])))))))))
  AND ((:project_id IS NULL AND (:everything OR (:narrow AND EXISTS (
     SELECT 1 FROM jsonb_array_elements(CAST(:scopes AS jsonb)) AS g (scope)
     WHERE (g.scope ->> 'secret_ref_prefix' IS NULL
            OR starts_with(s.secret_ref, g.scope ->> 'secret_ref_prefix'))
       AND (g.scope ->> 'provider' IS NULL OR g.scope ->> 'provider' = s.provider_type)
       AND (g.scope ->> 'cluster' IS NULL OR g.scope ->> 'cluster' = coalesce(nullif(s.cluster_name, ''), c.cluster_name))
       AND NOT (g.scope ->> 'project_id' IS NOT NULL OR g.scope -> 'team_ids' IS NOT NULL
            OR g.scope ->> 'environment_id' IS NOT NULL)))))
   OR EXISTS (
     SELECT 1
     FROM project_secrets AS b
     JOIN projects AS p ON p.id = b.project_id
     WHERE b.secret_id = s.id
       AND (:project_id IS NULL OR b.project_id = :project_id)
       AND (:everything
            OR p.team_id = ANY (CAST(:whole_teams AS uuid[]))
            OR p.id = ANY (CAST(:whole_projects AS uuid[]))
            OR b.environment_id = ANY (CAST(:whole_environments AS uuid[]))
            OR (b.environment_id IS NULL AND p.id = ANY (ARRAY(
                  SELECT o.project_id FROM environments AS o
                  WHERE o.id = ANY (CAST(:whole_environments AS uuid[])))))
            OR (:narrow AND EXISTS (
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
       AND (g.scope ->> 'cluster' IS NULL OR g.scope ->> 'cluster' = coalesce(nullif(s.cluster_name, ''), c.cluster_name)))))))
ORDER BY s.first_seen_at DESC, s.id DESC
LIMIT :limit;

-- name: secret_list_prod :many
-- Returns secrets of production that may be the one behind this connection by one of these paths:
-- what is registered without a connection may turn out to be behind any, on a cluster that is not
-- known to be another one. Each name once, however many entries have it, and in no order, for which
-- the whole catalogue would be read. Only the beginning of a long path is in the index, in small
-- letters. Paths arrive as JSON, which the two databases unpack differently.
SELECT DISTINCT s.secret_ref, s.provider_connection_id, c.scope
FROM secrets AS s
LEFT JOIN provider_connections AS c ON c.id = s.provider_connection_id
WHERE s.became_prod_at IS NOT NULL AND s.provider_type = :provider_type
  AND left(lower(s.secret_ref), 255) = ANY (ARRAY(
      SELECT left(lower(value), 255) FROM jsonb_array_elements_text(CAST(:refs AS jsonb)) AS t (value)))
  AND (s.secret_ref = ANY (ARRAY(SELECT value FROM jsonb_array_elements_text(CAST(:refs AS jsonb)) AS t (value)))
       OR (:provider_type = 'azure-kv' AND lower(s.secret_ref) = ANY (ARRAY(
             SELECT lower(value) FROM jsonb_array_elements_text(CAST(:refs AS jsonb)) AS t (value)))))
  AND (s.provider_connection_id = :connection_id
       OR ((s.provider_connection_id IS NULL OR :connection_id IS NULL)
           AND (:cluster_name = ''
                OR coalesce(nullif(s.cluster_name, ''), c.cluster_name, '') IN ('', :cluster_name))))
LIMIT :limit;
