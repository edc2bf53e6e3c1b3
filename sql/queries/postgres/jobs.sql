-- name: job_lock :one
-- Holds the job until the transaction ends and returns it, or no row.
-- The row lock serialises decisions; SQLite has one writer and needs none.
SELECT id, job_type, status, correlation_id, request_id, provider_connection_id, payload, attempts,
       max_attempts, claimed_by, claim_expires_at, lease_token_hash
FROM sync_jobs
WHERE id = :id FOR UPDATE;

-- name: job_claim :one
-- Leases the oldest runnable job this agent covers and returns it; a lapsed lease counts as
-- runnable while attempts are left.
-- Skip-locked lets claimers pass each other.
UPDATE sync_jobs
SET status = 'claimed', claimed_by = :agent_id, claimed_at = :now,
    claim_expires_at = :claim_expires_at, lease_token_hash = :lease_token_hash,
    attempts = attempts + 1, updated_at = :now
WHERE id = (
  SELECT j.id FROM sync_jobs AS j
  WHERE ((j.status = 'queued' AND j.run_after <= :now)
         OR (j.status = 'claimed' AND j.claim_expires_at <= :now AND j.attempts < j.max_attempts))
    AND ((:connection_id IS NOT NULL AND j.provider_connection_id = :connection_id)
         OR (:connection_id IS NULL AND j.provider_connection_id IS NULL
             AND (:provider_type IS NULL OR j.provider_type = :provider_type)))
    AND (j.cluster_name IS NULL OR j.cluster_name = :cluster_name)
    AND (j.request_id IS NULL
         OR EXISTS (SELECT 1 FROM access_requests AS r
                    WHERE r.id = j.request_id AND r.status = 'approved' AND r.execute_before_at > :now))
    -- Asked at every claim: a poll that began before the revocation must not get the job.
    AND EXISTS (SELECT 1 FROM agents AS a
                WHERE a.id = :agent_id AND a.status NOT IN ('revoked', 'disabled'))
    AND (j.provider_connection_id IS NULL
         OR EXISTS (SELECT 1 FROM provider_connections AS c
                    WHERE c.id = j.provider_connection_id AND c.status = 'active'))
  ORDER BY j.created_at, j.id
  LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, job_type, correlation_id, request_id, payload, attempts, max_attempts,
          claim_expires_at;
