-- Refused sign-ins since a time, newest first, with the account where one was named.
-- Variables: since (timestamp with time zone).
-- Run:  psql -v since='2026-01-01T00:00:00Z' -f sql/audit/login_failures.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\if :{?since}
\else
DO $$ BEGIN RAISE EXCEPTION 'since is missing (timestamp with time zone)'
  USING HINT = $run$psql -v since='2026-01-01T00:00:00Z' -f sql/audit/login_failures.sql$run$; END $$;
\endif
SELECT a.occurred_at, a.metadata ->> 'error_kind' AS error_kind, u.email,
       a.metadata ->> 'failed_login_count' AS failed_login_count, a.http_request_id
FROM audit_events AS a
LEFT JOIN local_users AS u ON a.resource = 'user:' || u.id
WHERE a.action = 'auth.login' AND a.status = 'denied' AND a.occurred_at >= :'since'
ORDER BY a.occurred_at DESC, a.id DESC;
