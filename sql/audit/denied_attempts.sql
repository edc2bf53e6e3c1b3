-- What was refused since a time, by who tried it: how often, for which reason, when first and last;
-- whoever was refused most comes first. permission is the one that was wanting, where that is known.
-- resources counts the different things it was tried on, and resource names them, at most five: those
-- tried most often first, then the latest. aimed_at is the account or agent that an attempt without
-- an identity named, if there is one.
-- addresses are those from which the person had signed in with sessions that could be in use at some
-- time between their first and last refusal here. last_http_request_id finds the last one in the log.
-- Limits: the trail holds no address of refused sign-ins and of agents; the API's log does, by
-- http_request_id. Refusals for form, for rate and of what is not there leave no row.
-- Variables: since (timestamp with time zone).
-- Run:  psql -v since='2026-01-01T00:00:00Z' -f sql/audit/denied_attempts.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\if :{?since}
\else
DO $$ BEGIN RAISE EXCEPTION 'since is missing (timestamp with time zone)'
  USING HINT = $run$psql -v since='2026-01-01T00:00:00Z' -f sql/audit/denied_attempts.sql$run$; END $$;
\endif
-- Compiling this takes longer than answering it.
SELECT set_config('jit', 'off', false) AS jit \gset
WITH denied AS (
  SELECT a.actor, a.action, coalesce(a.metadata ->> 'error_kind', a.metadata ->> 'reason') AS error_kind,
         coalesce(a.metadata ->> 'permission', a.metadata ->> 'actor_permission_attempted')
           AS permission,
         CASE a.actor WHEN 'anonymous' THEN coalesce(u.email, g.name) END AS aimed_at,
         a.resource, a.occurred_at, a.id, a.http_request_id
  FROM audit_events AS a
  LEFT JOIN local_users AS u ON a.resource = 'user:' || u.id
  LEFT JOIN agents AS g ON a.resource = 'agent:' || g.id
  WHERE a.status = 'denied' AND a.occurred_at >= :'since'
), tried AS (
  SELECT d.actor, d.action, d.error_kind, d.permission, d.aimed_at, d.resource,
         row_number() OVER (PARTITION BY d.actor, d.action, d.error_kind, d.permission, d.aimed_at
                            ORDER BY count(*) DESC, max(d.occurred_at) DESC, d.resource) AS place
  FROM denied AS d
  GROUP BY d.actor, d.action, d.error_kind, d.permission, d.aimed_at, d.resource
), named AS (
  SELECT t.actor, t.action, t.error_kind, t.permission, t.aimed_at, count(*) AS resources,
         string_agg(t.resource, ' ' ORDER BY t.place) FILTER (WHERE t.place <= 5) AS resource
  FROM tried AS t
  GROUP BY t.actor, t.action, t.error_kind, t.permission, t.aimed_at
), actors AS (
  SELECT d.actor, count(*) AS attempts, min(d.occurred_at) AS first_at, max(d.occurred_at) AS last_at
  FROM denied AS d
  GROUP BY d.actor
), signed_in AS (
  SELECT c.actor, string_agg(DISTINCT a.metadata ->> 'ip', ' ' ORDER BY a.metadata ->> 'ip')
           AS addresses
  FROM actors AS c
  JOIN audit_events AS a ON a.actor = c.actor AND a.action = 'session.create'
   AND a.status = 'success' AND a.occurred_at <= c.last_at
   AND CAST(a.metadata ->> 'expires_at' AS timestamptz) >= c.first_at
  GROUP BY c.actor
)
SELECT d.actor, coalesce(u.email, g.name) AS who, d.action, d.error_kind, d.permission, d.aimed_at,
       n.resources, n.resource,
       count(*) AS attempts, min(d.occurred_at) AS first_at, max(d.occurred_at) AS last_at,
       s.addresses,
       (array_agg(d.http_request_id ORDER BY d.occurred_at DESC, d.id DESC))[1]
         AS last_http_request_id
FROM denied AS d
JOIN actors AS c ON c.actor = d.actor
JOIN named AS n ON n.actor = d.actor AND n.action = d.action
 AND n.error_kind IS NOT DISTINCT FROM d.error_kind
 AND n.permission IS NOT DISTINCT FROM d.permission AND n.aimed_at IS NOT DISTINCT FROM d.aimed_at
LEFT JOIN signed_in AS s ON s.actor = d.actor
LEFT JOIN local_users AS u ON d.actor = 'user:' || u.id
LEFT JOIN agents AS g ON d.actor = 'agent:' || g.id
GROUP BY c.attempts, d.actor, u.email, g.name, d.action, d.error_kind, d.permission, d.aimed_at,
         n.resources, n.resource, s.addresses
ORDER BY c.attempts DESC, d.actor, attempts DESC, d.action, d.error_kind, d.permission, d.aimed_at;
