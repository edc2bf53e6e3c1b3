-- Agents that should be alive and have not been heard for longer than a span.
-- Variables: silent_for (interval).
-- Run:  psql -v silent_for='5 minutes' -f sql/audit/stale_agents.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\if :{?silent_for}
\else
DO $$ BEGIN RAISE EXCEPTION 'silent_for is missing (interval)'
  USING HINT = $run$psql -v silent_for='5 minutes' -f sql/audit/stale_agents.sql$run$; END $$;
\endif
SELECT a.id, a.name, a.status, c.name AS provider_connection, a.cluster_name, a.agent_version,
       a.last_seen_at, now() - coalesce(a.last_seen_at, a.created_at) AS silent, a.last_error
FROM agents AS a
LEFT JOIN provider_connections AS c ON c.id = a.provider_connection_id
WHERE :'silent_for'::interval < now() - coalesce(a.last_seen_at, a.created_at)
  AND a.status IN ('active', 'enrolled', 'stale', 'error')
ORDER BY silent DESC, a.id;
