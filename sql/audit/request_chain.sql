-- What happened to one request, first event first: who, what, on which row, with which outcome.
-- An error: there is no such request.
-- Variables: request_id (uuid of the request).
-- Run:  psql -v request_id=01a20952-80b3-74ea-a5c6-4e85ee6af5ff -f sql/audit/request_chain.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\if :{?request_id}
\else
DO $$ BEGIN RAISE EXCEPTION 'request_id is missing (uuid of the request)'
  USING HINT = $run$psql -v request_id=01a20952-80b3-74ea-a5c6-4e85ee6af5ff -f sql/audit/request_chain.sql$run$; END $$;
\endif
SELECT a.occurred_at, a.actor, coalesce(u.email, g.name) AS who, a.action, a.status, a.resource,
       a.metadata, a.http_request_id
FROM audit_events AS a
LEFT JOIN local_users AS u ON a.actor = 'user:' || u.id
LEFT JOIN agents AS g ON a.actor = 'agent:' || g.id
WHERE a.correlation_id = :'request_id'
ORDER BY a.occurred_at, a.id;
-- A slip of the pen must not read as if nothing had happened.
SELECT :ROW_COUNT = 0 AS unknown, set_config('audit.asked', :'request_id', false) AS asked \gset
\if :unknown
DO $$ BEGIN
  IF EXISTS (SELECT 1 FROM access_requests AS r
             WHERE r.id = CAST(current_setting('audit.asked') AS uuid)) THEN
    RAISE EXCEPTION 'nothing is recorded of the request: %', current_setting('audit.asked');
  END IF;
  RAISE EXCEPTION 'no such request: %', current_setting('audit.asked');
END $$;
\endif
