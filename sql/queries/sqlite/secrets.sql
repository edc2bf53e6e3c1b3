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
  AND (:ref_prefix IS NULL OR substr(s.secret_ref, 1, length(:ref_prefix)) = :ref_prefix)
  AND (:before_at IS NULL OR (s.first_seen_at, s.id) < (:before_at, :before_id))
  AND (:labels IS NULL OR NOT EXISTS (
     SELECT 1 FROM json_each(:labels) AS l
     WHERE NOT EXISTS (SELECT 1 FROM json_each(s.labels) AS m
                       WHERE m.key = l.key AND m.type = 'text' AND m.value = l.value)))
  AND (:anywhere OR s.id IN (
     SELECT b.secret_id
     FROM project_secrets AS b
     JOIN projects AS p ON p.id = b.project_id
     WHERE (:id IS NULL OR b.secret_id = :id)
       AND (p.team_id IN (SELECT j.value FROM json_each('[' || substr(:team_ids, 2, length(:team_ids) - 2) || ']') AS j)
            OR p.id IN (SELECT j.value FROM json_each('[' || substr(:project_ids, 2, length(:project_ids) - 2) || ']') AS j)
            OR b.environment_id IN (SELECT j.value FROM json_each('[' || substr(:environment_ids, 2, length(:environment_ids) - 2) || ']') AS j)
            OR (b.environment_id IS NULL AND p.id IN (
                  SELECT o.project_id FROM environments AS o
                  WHERE o.id IN (SELECT j.value FROM json_each('[' || substr(:environment_ids, 2, length(:environment_ids) - 2) || ']') AS j))))))
  AND ((:project_id IS NULL AND (:everything OR (:narrow AND EXISTS (
     SELECT 1 FROM json_each(:scopes) AS g
     WHERE (g.value ->> 'secret_ref_prefix' IS NULL
            OR substr(s.secret_ref, 1, length(g.value ->> 'secret_ref_prefix')) = g.value ->> 'secret_ref_prefix')
       AND (g.value ->> 'provider' IS NULL OR g.value ->> 'provider' = s.provider_type)
       AND (g.value ->> 'cluster' IS NULL OR g.value ->> 'cluster' = coalesce(nullif(s.cluster_name, ''), c.cluster_name))
       AND NOT (g.value ->> 'project_id' IS NOT NULL OR g.value -> 'team_ids' IS NOT NULL
            OR g.value ->> 'environment_id' IS NOT NULL)))))
   OR EXISTS (
     SELECT 1
     FROM project_secrets AS b
     JOIN projects AS p ON p.id = b.project_id
     WHERE b.secret_id = s.id
       AND (:project_id IS NULL OR b.project_id = :project_id)
       AND (:everything
            OR p.team_id IN (SELECT j.value FROM json_each('[' || substr(:whole_teams, 2, length(:whole_teams) - 2) || ']') AS j)
            OR p.id IN (SELECT j.value FROM json_each('[' || substr(:whole_projects, 2, length(:whole_projects) - 2) || ']') AS j)
            OR b.environment_id IN (SELECT j.value FROM json_each('[' || substr(:whole_environments, 2, length(:whole_environments) - 2) || ']') AS j)
            OR (b.environment_id IS NULL AND p.id IN (
                  SELECT o.project_id FROM environments AS o
                  WHERE o.id IN (SELECT j.value FROM json_each('[' || substr(:whole_environments, 2, length(:whole_environments) - 2) || ']') AS j)))
            OR (:narrow AND EXISTS (
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
       AND (g.value ->> 'cluster' IS NULL OR g.value ->> 'cluster' = coalesce(nullif(s.cluster_name, ''), c.cluster_name)))))))
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
  AND substr(lower(s.secret_ref), 1, 255) IN (
      SELECT substr(lower(value), 1, 255) FROM json_each(:refs))
  AND (s.secret_ref IN (SELECT value FROM json_each(:refs))
       OR (:provider_type = 'azure-kv' AND lower(s.secret_ref) IN (
             SELECT lower(value) FROM json_each(:refs))))
  AND (s.provider_connection_id = :connection_id
       OR ((s.provider_connection_id IS NULL OR :connection_id IS NULL)
           AND (:cluster_name = ''
                OR coalesce(nullif(s.cluster_name, ''), c.cluster_name, '') IN ('', :cluster_name))))
LIMIT :limit;
