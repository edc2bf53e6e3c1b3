-- What the worker's sweeps should have taken by now: rows overdue and the oldest one's delay.
-- More than a few minutes anywhere, or two hours for sessions-purge, means that no worker runs or
-- that one of its tasks fails.
-- Variables: none.
-- Run:  psql -f sql/audit/sweeper_lag.sql
\set ON_ERROR_STOP on
SELECT 'wraps-expired' AS task, count(*) AS overdue, now() - min(expires_at) AS oldest_delay
FROM secret_wraps AS w
WHERE w.expires_at <= now()
  -- A spent one stays while its request's job could still post.
  AND (w.consumed_at IS NULL
       OR NOT EXISTS (SELECT 1 FROM access_requests AS r
                      WHERE r.id = w.request_id AND r.status = 'approved'))
UNION ALL
SELECT 'requests-expired', count(*),
       now() - min(CASE status WHEN 'pending' THEN expires_at ELSE execute_before_at END)
FROM access_requests AS r
WHERE (status = 'pending' AND expires_at <= now())
   -- Those in an agent's hands come when its lease has lapsed.
   OR (status = 'approved' AND execute_before_at <= now()
       AND NOT EXISTS (SELECT 1 FROM sync_jobs AS j
                       WHERE j.id = r.job_id AND j.status = 'claimed'
                         AND j.claim_expires_at > now()))
UNION ALL
SELECT 'jobs-recovery', count(*), now() - min(claim_expires_at)
FROM sync_jobs WHERE status = 'claimed' AND claim_expires_at <= now()
UNION ALL
SELECT 'idempotency-expired', count(*), now() - min(expires_at)
FROM idempotency_keys WHERE expires_at <= now()
UNION ALL
SELECT 'agents-stale', count(*), now() - min(coalesce(last_seen_at, created_at))
FROM agents
WHERE status = 'active' AND coalesce(last_seen_at, created_at) < now() - interval '5 minutes'
UNION ALL
-- Ended ones are kept a while, so that people who come late are told what became of them.
SELECT 'sessions-purge', count(*), now() - interval '7 days' - min(expires_at)
FROM sessions WHERE expires_at <= now() - interval '7 days'
UNION ALL
SELECT 'enrollment-tokens-expired', count(*), now() - interval '1 day' - min(expires_at)
FROM agent_enrollment_tokens WHERE expires_at <= now() - interval '1 day'
ORDER BY task;
