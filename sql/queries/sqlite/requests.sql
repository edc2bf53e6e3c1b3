-- name: request_lock :one
-- Holds the request until the transaction ends and returns its status, or no row.
-- SQLite has one writer at a time, so the transaction itself is the lock.
SELECT id, status FROM access_requests WHERE id = :id;

-- name: request_lock_unless_held :one
-- Holds the request until the transaction ends and returns it; no row when somebody else holds it.
-- SQLite has one writer at a time, so the transaction itself is the lock.
SELECT id, status FROM access_requests WHERE id = :id;

-- name: request_list :many
-- Returns a page of the requests the caller may see, newest first: own ones and those in scope.
-- Only those the caller can decide on now, if so asked. Projects that a grant covers whole come as a list of ids
-- for the indexes; scopes that say more are JSON, which the two databases unpack differently, and each is also in
-- one of the lists of what it takes to be within it, unless it could be anywhere.
WITH page AS MATERIALIZED (
  SELECT r.*, p.team_id
  FROM access_requests AS r
  LEFT JOIN projects AS p ON p.id = r.project_id
  WHERE (:requester_id IS NULL OR r.requester_id = :requester_id)
    AND (:status IS NULL OR r.status = :status)
    AND (:type IS NULL OR r.type = :type)
    AND (:project_id IS NULL OR r.project_id = :project_id)
    AND (:environment_id IS NULL OR r.environment_id = :environment_id)
    AND (:since IS NULL OR r.created_at >= :since)
    AND (:until IS NULL OR r.created_at < :until)
    AND (:before_at IS NULL OR (r.created_at, r.id) < (:before_at, :before_id))
    AND (NOT :undecided
         OR (r.status = 'pending' AND r.expires_at > :now
             AND (r.snap_allow_self_approval OR r.requester_id <> :caller_id)
             AND NOT EXISTS (SELECT 1 FROM approvals AS v
                             WHERE v.request_id = r.id AND v.approver_id = :caller_id)
             AND (r.snap_approver_role_id IS NULL OR r.snap_approver_role_id = :sole_role_id
                  OR EXISTS (
           SELECT 1 FROM json_each(:scopes) AS g
           WHERE g.value ->> 'role_id' = r.snap_approver_role_id
             AND (r.project_id IS NOT NULL OR json_remove(g.value, '$.role_id') = '{}')
             AND (g.value ->> 'project_id' IS NULL OR g.value ->> 'project_id' = r.project_id)
             AND (g.value -> 'team_ids' IS NULL
                OR p.team_id IN (SELECT t.value FROM json_each(g.value, '$.team_ids') AS t))
             AND (g.value ->> 'environment_id' IS NULL OR g.value ->> 'environment_id' = r.environment_id)
             AND (g.value ->> 'secret_ref_prefix' IS NULL
                OR substr(r.target_secret_ref, 1, length(g.value ->> 'secret_ref_prefix')) = g.value ->> 'secret_ref_prefix')
             AND (g.value ->> 'provider' IS NULL OR g.value ->> 'provider' = r.target_provider_type)
             AND (g.value ->> 'cluster' IS NULL OR g.value ->> 'cluster' = r.cluster_name)))))
    AND (:everything
         OR (NOT :undecided AND r.requester_id = :caller_id)
         OR r.project_id IN (
              SELECT j.value FROM json_each('[' || substr(:projects, 2, length(:projects) - 2) || ']') AS j)
         OR (:narrow AND (:anywhere
               OR r.project_id IN (
                    SELECT j.value FROM json_each('[' || substr(:reach, 2, length(:reach) - 2) || ']') AS j)
               OR r.environment_id IN (
                    SELECT j.value FROM json_each('[' || substr(:environments, 2, length(:environments) - 2) || ']') AS j)
               OR substr(r.target_secret_ref, 1, 255) IN (
                    SELECT j.value FROM json_each('[' || substr(:refs, 2, length(:refs) - 2) || ']') AS j)
               OR (:prefixes IS NOT NULL AND EXISTS (
                    SELECT 1 FROM json_each('[' || substr(:prefixes, 2, length(:prefixes) - 2) || ']') AS j
                    WHERE substr(r.target_secret_ref, 1, length(j.value)) = j.value))
               OR (:clusters IS NOT NULL AND r.cluster_name IN (
                    SELECT j.value FROM json_each('[' || substr(:clusters, 2, length(:clusters) - 2) || ']') AS j))
               OR (:providers IS NOT NULL AND r.target_provider_type IN (
                    SELECT j.value FROM json_each('[' || substr(:providers, 2, length(:providers) - 2) || ']') AS j)))))
    AND (NOT :narrow OR :everything
         OR (NOT :undecided AND r.requester_id = :caller_id)
         OR r.project_id IN (
              SELECT j.value FROM json_each('[' || substr(:projects, 2, length(:projects) - 2) || ']') AS j)
         OR EXISTS (
           SELECT 1 FROM json_each(:scopes) AS g
           WHERE (r.project_id IS NOT NULL OR json_remove(g.value, '$.role_id') = '{}')
             AND (g.value ->> 'project_id' IS NULL OR g.value ->> 'project_id' = r.project_id)
             AND (g.value -> 'team_ids' IS NULL
                OR p.team_id IN (SELECT t.value FROM json_each(g.value, '$.team_ids') AS t))
             AND (g.value ->> 'environment_id' IS NULL OR g.value ->> 'environment_id' = r.environment_id)
             AND (g.value ->> 'secret_ref_prefix' IS NULL
                OR substr(r.target_secret_ref, 1, length(g.value ->> 'secret_ref_prefix')) = g.value ->> 'secret_ref_prefix')
             AND (g.value ->> 'provider' IS NULL OR g.value ->> 'provider' = r.target_provider_type)
             AND (g.value ->> 'cluster' IS NULL OR g.value ->> 'cluster' = r.cluster_name)))
  ORDER BY r.created_at DESC, r.id DESC
  LIMIT :limit
)
SELECT r.id, r.requester_id, r.type, r.justification, r.status, r.workflow_id,
       r.matched_policy_rule_id, r.project_id, r.environment_id, r.secret_id,
       r.provider_connection_id, r.cluster_name, r.target_provider_type, r.target_provider_config,
       r.target_secret_ref, r.target_keys, r.target_scope, r.snap_min_approvers,
       r.snap_allow_self_approval, r.snap_approver_role_id, r.snap_wrap_ttl_created_seconds,
       r.snap_wrap_ttl_approved_seconds, r.snap_wrap_ttl_claimed_seconds, r.reject_reason,
       r.failure_reason, r.job_id, r.expires_at, r.execute_before_at, r.decided_at, r.finished_at,
       r.created_at, r.updated_at, r.team_id, p.name AS project_name, e.name AS environment_name,
       r.snap_environment_kind AS environment_kind, k.name AS workflow_name, u.email AS requester_email,
       u.display_name AS requester_name,
       (SELECT count(*) FROM approvals AS v
        WHERE v.request_id = r.id AND v.decision = 'approve') AS approvals_count,
       (SELECT max(w.expires_at) FROM secret_wraps AS w
        WHERE w.request_id = r.id AND w.consumed_at IS NULL) AS unspent_until,
       (SELECT count(*) FROM approvals AS mine
        WHERE mine.request_id = r.id AND mine.approver_id = :caller_id) AS own_votes
FROM page AS r
JOIN local_users AS u ON u.id = r.requester_id
JOIN workflow_definitions AS k ON k.id = r.workflow_id
LEFT JOIN projects AS p ON p.id = r.project_id
LEFT JOIN environments AS e ON e.id = r.environment_id
ORDER BY r.created_at DESC, r.id DESC
LIMIT :limit;

-- name: request_list_projects :many
-- Returns the ids of the projects named and of those that stand in one of the teams.
-- Ids arrive as the text of an array, of which JSON is made here.
SELECT p.id
FROM projects AS p
WHERE p.id IN (SELECT j.value FROM json_each('[' || substr(:project_ids, 2, length(:project_ids) - 2) || ']') AS j)
   OR p.team_id IN (SELECT j.value FROM json_each('[' || substr(:team_ids, 2, length(:team_ids) - 2) || ']') AS j)
ORDER BY p.id
LIMIT 5001;

-- name: request_list_refs :many
-- Returns how the paths of requests begin, as far as the index keeps them, that begin with one of the prefixes: up to
-- so many of each prefix and one more, each with its place among them.
-- From path to path through the index; texts are in the order of their characters here.
WITH RECURSIVE step (prefix, ref, place) AS (
  SELECT p.value, (SELECT substr(r.target_secret_ref, 1, 255) FROM access_requests AS r
                   WHERE substr(r.target_secret_ref, 1, 255) >= p.value
                   ORDER BY substr(r.target_secret_ref, 1, 255) LIMIT 1), 1
  FROM json_each(:prefixes) AS p
  UNION ALL
  SELECT s.prefix, (SELECT substr(r.target_secret_ref, 1, 255) FROM access_requests AS r
                    WHERE substr(r.target_secret_ref, 1, 255) > s.ref
                    ORDER BY substr(r.target_secret_ref, 1, 255) LIMIT 1), s.place + 1
  FROM step AS s
  WHERE substr(s.ref, 1, length(s.prefix)) = s.prefix AND s.place <= :most
)
SELECT s.ref, s.place
FROM step AS s
WHERE substr(s.ref, 1, length(s.prefix)) = s.prefix
ORDER BY s.ref, s.place
LIMIT 5000;

-- name: request_list_overdue :many
-- Returns pending requests past their end and approved ones whose job ran out of time, oldest first.
-- SQLite has one writer at a time, so the transaction itself is the lock.
SELECT id, status, requester_id, type, job_id, expires_at, execute_before_at
FROM access_requests
WHERE (status = 'pending' AND expires_at <= :now)
   -- Those in an agent's hands come when its lease has lapsed: it cannot be renewed any more.
   OR (status = 'approved' AND execute_before_at <= :now
       AND NOT EXISTS (SELECT 1 FROM sync_jobs AS j
                       WHERE j.id = access_requests.job_id AND j.status = 'claimed'
                         AND j.claim_expires_at > :now))
ORDER BY created_at, id
LIMIT :limit;
