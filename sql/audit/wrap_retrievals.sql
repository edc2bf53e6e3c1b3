-- Every hand-over of a value since a time: who saw or fetched which key of which secret, when.
-- Refused attempts are listed too, with their reason.
-- Variables: since (timestamp with time zone).
-- Run:  psql -v since='2026-01-01T00:00:00Z' -f sql/audit/wrap_retrievals.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\if :{?since}
\else
DO $$ BEGIN RAISE EXCEPTION 'since is missing (timestamp with time zone)'
  USING HINT = $run$psql -v since='2026-01-01T00:00:00Z' -f sql/audit/wrap_retrievals.sql$run$; END $$;
\endif
SELECT a.occurred_at, a.actor, coalesce(u.email, g.name) AS who, a.status,
       a.metadata ->> 'error_kind' AS error_kind, a.metadata ->> 'key_name' AS key_name,
       r.target_provider_type, r.target_secret_ref, a.correlation_id AS request_id
FROM audit_events AS a
LEFT JOIN local_users AS u ON a.actor = 'user:' || u.id
LEFT JOIN agents AS g ON a.actor = 'agent:' || g.id
LEFT JOIN access_requests AS r ON r.id = a.correlation_id
WHERE a.action = 'wrap.retrieve' AND a.occurred_at >= :'since'
ORDER BY a.occurred_at DESC, a.id DESC;
