-- What happened to one request, first event first: who, what, on which row, with which outcome.
-- Variables: request_id (uuid of the request).
-- Run:  psql -v request_id=0190… -f sql/audit/request_chain.sql
\set ON_ERROR_STOP on
SELECT a.occurred_at, a.actor, coalesce(u.email, g.name) AS who, a.action, a.status, a.resource,
       a.metadata, a.http_request_id
FROM audit_events AS a
LEFT JOIN local_users AS u ON a.actor = 'user:' || u.id
LEFT JOIN agents AS g ON a.actor = 'agent:' || g.id
WHERE a.correlation_id = :'request_id'
ORDER BY a.occurred_at, a.id;
