-- name: job_insert :count
-- Enqueues a job; the unique index refuses a second one for the same request.
INSERT INTO sync_jobs (id, job_type, status, correlation_id, request_id, provider_connection_id,
                       cluster_name, provider_type, payload, attempts, max_attempts, run_after,
                       created_at, updated_at)
VALUES (:id, :job_type, 'queued', :correlation_id, :request_id, :provider_connection_id,
        :cluster_name, :provider_type, :payload, 0, :max_attempts, :now, :now, :now);

-- name: job_find_request :one
-- Returns which request a job belongs to and the lease it was last held under, or no row.
SELECT id, request_id, correlation_id, lease_token_hash FROM sync_jobs WHERE id = :id;

-- name: job_find_live_lease :one
-- Returns the job this agent holds under this lease token for this request, or no row.
SELECT id, job_type, attempts FROM sync_jobs
WHERE request_id = :request_id AND status = 'claimed' AND claimed_by = :agent_id
  AND lease_token_hash = :lease_token_hash AND claim_expires_at > :now;

-- name: job_renew :count
-- Moves the end of a live lease; 0 when the lease is lost or its request has run out of time.
UPDATE sync_jobs SET claim_expires_at = :claim_expires_at, updated_at = :now
WHERE id = :id AND status = 'claimed' AND claimed_by = :agent_id
  AND lease_token_hash = :lease_token_hash AND claim_expires_at > :now
  AND (request_id IS NULL
       OR EXISTS (SELECT 1 FROM access_requests AS r
                  WHERE r.id = sync_jobs.request_id AND r.execute_before_at > :now));

-- name: job_finish :count
-- Ends a claimed job under the lease that holds it; 0 when the lease is lost.
UPDATE sync_jobs
SET status = :status, error = :error, result = :result, finished_at = :now, updated_at = :now
WHERE id = :id AND status = 'claimed' AND claimed_by = :agent_id
  AND lease_token_hash = :lease_token_hash;

-- name: job_requeue :count
-- Puts a claimed job back into the queue under the lease that was seen; 0 when it has moved on.
-- The lease under which its failure was reported stays known until the next claim.
UPDATE sync_jobs
SET status = 'queued', run_after = :run_after, claimed_by = :reported_by, claim_expires_at = NULL,
    lease_token_hash = :reported_under, error = :error, updated_at = :now
WHERE id = :id AND status = 'claimed' AND lease_token_hash = :lease_token_hash
  AND attempts < max_attempts;

-- name: job_give_up :count
-- Fails a claimed job that has no attempt left, under the lease that was seen; 0 when it moved on.
-- The lease is forgotten with it: whoever held it has reported nothing.
UPDATE sync_jobs
SET status = 'failed', error = :error, lease_token_hash = NULL, finished_at = :now,
    updated_at = :now
WHERE id = :id AND status = 'claimed' AND lease_token_hash = :lease_token_hash
  AND claim_expires_at <= :now;

-- name: job_expire_unclaimed :count
-- Expires a job nobody works on; 0 when an agent holds a live lease or it has ended.
UPDATE sync_jobs
SET status = 'expired', error = :error, finished_at = :now, updated_at = :now
WHERE id = :id AND (status = 'queued' OR (status = 'claimed' AND claim_expires_at <= :now));

-- name: job_list_lapsed :many
-- Returns claimed jobs whose lease has lapsed, oldest lease first. Each is locked and looked at again
-- before it is moved, request first.
SELECT id, request_id, correlation_id, attempts, max_attempts, claimed_by, lease_token_hash
FROM sync_jobs
WHERE status = 'claimed' AND claim_expires_at <= :now
ORDER BY claim_expires_at, id
LIMIT :limit;

-- name: job_depth :many
-- Returns how many unfinished jobs there are of each type and status.
SELECT job_type, status, count(*) AS depth, min(created_at) AS oldest_at
FROM sync_jobs
WHERE status IN ('queued', 'claimed')
GROUP BY job_type, status
LIMIT 100;

-- name: job_revoke :count
-- Fails a job that was leased at this moment and must not be handed out; no agent has had it.
UPDATE sync_jobs
SET status = 'failed', error = :error, finished_at = :now, claimed_by = NULL, claimed_at = NULL,
    claim_expires_at = NULL, lease_token_hash = NULL, attempts = attempts - 1, updated_at = :now
WHERE id = :id AND status = 'claimed' AND lease_token_hash = :lease_token_hash;
