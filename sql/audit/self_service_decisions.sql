-- Separation of duties: requests decided by the person who made them, or approved by nobody.
-- An empty answer is the good one, unless a workflow allows self-approval or asks nobody.
-- Variables: since (timestamp with time zone).
-- Run:  psql -v since='2026-01-01T00:00:00Z' -f sql/audit/self_service_decisions.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\if :{?since}
\else
DO $$ BEGIN RAISE EXCEPTION 'since is missing (timestamp with time zone)'
  USING HINT = $run$psql -v since='2026-01-01T00:00:00Z' -f sql/audit/self_service_decisions.sql$run$; END $$;
\endif
SELECT r.id, u.email AS requester, r.type, r.status, r.target_secret_ref, w.name AS workflow,
       CASE WHEN v.id IS NOT NULL THEN 'decided by its requester' ELSE 'approved by nobody' END
         AS finding
FROM access_requests AS r
JOIN local_users AS u ON u.id = r.requester_id
JOIN workflow_definitions AS w ON w.id = r.workflow_id
LEFT JOIN approvals AS v ON v.request_id = r.id AND v.approver_id = r.requester_id
WHERE r.created_at >= :'since'
  AND (v.id IS NOT NULL
       -- Its job's deadline is set when a request is approved, and stays: it may have expired since.
       OR (r.execute_before_at IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM approvals AS a
                           WHERE a.request_id = r.id AND a.decision = 'approve')))
ORDER BY r.created_at, r.id;
