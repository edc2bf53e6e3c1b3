-- Requests that still wait for people or for an agent, oldest first, with votes and time left.
-- approvals are those that were cast. One counts while its voter is active and could still cast it: who
-- could is told by project_approvers.sql, and how many counted at the last one by request_chain.sql.
-- Variables: none.
-- Run:  psql -f sql/audit/open_requests_by_age.sql
\set ON_ERROR_STOP on
SELECT r.id, r.status, r.type, u.email AS requester, r.target_provider_type, r.target_secret_ref,
       now() - r.created_at AS age,
       CASE r.status WHEN 'pending' THEN r.expires_at ELSE r.execute_before_at END - now() AS left,
       (SELECT count(*) FROM approvals AS v
        WHERE v.request_id = r.id AND v.decision = 'approve') AS approvals,
       r.snap_min_approvers AS approvals_required,
       j.status AS job_status, j.attempts AS job_attempts, j.error AS job_error
FROM access_requests AS r
JOIN local_users AS u ON u.id = r.requester_id
LEFT JOIN sync_jobs AS j ON j.id = r.job_id
WHERE r.status IN ('pending', 'approved')
ORDER BY r.created_at, r.id;
