-- name: request_lock :one
-- Holds the request until the transaction ends and returns its status, or no row.
-- The row lock serialises decisions; SQLite has one writer and needs none.
SELECT id, status FROM access_requests WHERE id = :id FOR UPDATE;

-- name: request_lock_unless_held :one
-- Holds the request until the transaction ends and returns it; no row when somebody else holds it.
-- Skipping instead of waiting leaves the order of locks whole; SQLite has one writer and needs none.
SELECT id, status FROM access_requests WHERE id = :id FOR UPDATE SKIP LOCKED;

-- name: request_list :many
-- Returns a page of the requests the caller may see, newest first: own ones and those in scope.
-- Only those the caller can decide on now, if so asked. Projects that a grant covers whole come as a list of ids
-- for the indexes; scopes that say more are JSON, which the two databases unpack differently, and each is also in
-- one of the lists of what it takes to be within it, unless it could be anywhere.
WITH page AS MATERIALIZED (
  SELECT r.*, p.team_id
  FROM access_requests AS r
  -- OFFSET 0: each by its key, where the planner would read whole tables to hash them.
  LEFT JOIN LATERAL (
    SELECT p.team_id FROM projects AS p WHERE p.id = r.project_id OFFSET 0) AS p ON TRUE
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
           SELECT 1 FROM jsonb_array_elements(CAST(:scopes AS jsonb)) AS g (scope)
           WHERE g.scope ->> 'role_id' = CAST(r.snap_approver_role_id AS text)
             AND (r.project_id IS NOT NULL OR g.scope - 'role_id' = '{}')
             AND (g.scope ->> 'project_id' IS NULL OR g.scope ->> 'project_id' = CAST(r.project_id AS text))
             AND (g.scope -> 'team_ids' IS NULL
                  OR g.scope -> 'team_ids' @> to_jsonb(CAST(p.team_id AS text)))
             AND (g.scope ->> 'environment_id' IS NULL OR g.scope ->> 'environment_id' = CAST(r.environment_id AS text))
             AND (g.scope ->> 'secret_ref_prefix' IS NULL OR starts_with(r.target_secret_ref, g.scope ->> 'secret_ref_prefix'))
             AND (g.scope ->> 'provider' IS NULL OR g.scope ->> 'provider' = r.target_provider_type)
             AND (g.scope ->> 'cluster' IS NULL OR g.scope ->> 'cluster' = r.cluster_name)))))
    AND (:everything
         OR (NOT :undecided AND r.requester_id = :caller_id)
         OR r.project_id = ANY (CAST(:projects AS uuid[]))
         OR (:narrow AND (:anywhere
               OR r.project_id = ANY (CAST(:reach AS uuid[]))
               OR r.environment_id = ANY (CAST(:environments AS uuid[]))
               OR left(r.target_secret_ref, 255) = ANY (CAST(:refs AS text[]))
               OR (:prefixes IS NOT NULL AND r.target_secret_ref ^@ ANY (CAST(:prefixes AS text[])))
               OR (:clusters IS NOT NULL AND r.cluster_name = ANY (CAST(:clusters AS text[])))
               OR (:providers IS NOT NULL AND r.target_provider_type = ANY (CAST(:providers AS text[]))))))
    AND (NOT :narrow OR :everything
         OR (NOT :undecided AND r.requester_id = :caller_id)
         OR r.project_id = ANY (CAST(:projects AS uuid[]))
         OR EXISTS (
           SELECT 1 FROM jsonb_array_elements(CAST(:scopes AS jsonb)) AS g (scope)
           WHERE (r.project_id IS NOT NULL OR g.scope - 'role_id' = '{}')
             AND (g.scope ->> 'project_id' IS NULL OR g.scope ->> 'project_id' = CAST(r.project_id AS text))
             AND (g.scope -> 'team_ids' IS NULL
                  OR g.scope -> 'team_ids' @> to_jsonb(CAST(p.team_id AS text)))
             AND (g.scope ->> 'environment_id' IS NULL OR g.scope ->> 'environment_id' = CAST(r.environment_id AS text))
             AND (g.scope ->> 'secret_ref_prefix' IS NULL OR starts_with(r.target_secret_ref, g.scope ->> 'secret_ref_prefix'))
             AND (g.scope ->> 'provider' IS NULL OR g.scope ->> 'provider' = r.target_provider_type)
             AND (g.scope ->> 'cluster' IS NULL OR g.scope ->> 'cluster' = r.cluster_name)))
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
CROSS JOIN LATERAL (
  SELECT u.email, u.display_name FROM local_users AS u WHERE u.id = r.requester_id OFFSET 0) AS u
CROSS JOIN LATERAL (SELECT k.name FROM workflow_definitions AS k WHERE k.id = r.workflow_id OFFSET 0) AS k
LEFT JOIN LATERAL (
  SELECT p.name FROM projects AS p WHERE p.id = r.project_id OFFSET 0) AS p ON TRUE
LEFT JOIN LATERAL (
  SELECT e.name, e.kind FROM environments AS e WHERE e.id = r.environment_id OFFSET 0) AS e ON TRUE
ORDER BY r.created_at DESC, r.id DESC
LIMIT :limit;

-- name: request_list_projects :many
-- Returns the ids of the projects named and of those that stand in one of the teams.
-- Ids arrive as the text of an array, which is read once. Teams are looked at one by one: of many, the planner would
-- read all projects instead.
SELECT p.id
FROM projects AS p
WHERE p.id = ANY (CAST(:project_ids AS uuid[]))
UNION
SELECT p.id
FROM unnest(CAST(:team_ids AS uuid[])) AS t (id)
CROSS JOIN LATERAL (SELECT o.id FROM projects AS o WHERE o.team_id = t.id OFFSET 0) AS p
ORDER BY id
LIMIT 5001;

-- name: request_list_refs :many
-- Returns how the paths of requests begin, as far as the index keeps them, that begin with one of the prefixes: up to
-- so many of each prefix and one more, each with its place among them.
-- From path to path through the index, in the order of characters; each counts once, however many requests it has.
WITH RECURSIVE step (prefix, ref, place) AS (
  SELECT p.prefix, (SELECT left(r.target_secret_ref, 255) FROM access_requests AS r
                   WHERE left(r.target_secret_ref, 255) ~>=~ p.prefix
                   ORDER BY left(r.target_secret_ref, 255) USING ~<~ LIMIT 1), 1
  FROM jsonb_array_elements_text(CAST(:prefixes AS jsonb)) AS p (prefix)
  UNION ALL
  SELECT s.prefix, (SELECT left(r.target_secret_ref, 255) FROM access_requests AS r
                    WHERE left(r.target_secret_ref, 255) ~>~ s.ref
                    ORDER BY left(r.target_secret_ref, 255) USING ~<~ LIMIT 1), s.place + 1
  FROM step AS s
  WHERE starts_with(s.ref, s.prefix) AND s.place <= :most
)
SELECT s.ref, s.place
FROM step AS s
WHERE starts_with(s.ref, s.prefix)
ORDER BY s.ref, s.place
LIMIT 5000;

-- name: request_list_overdue :many
-- Returns pending requests past their end and approved ones whose job ran out of time, oldest first.
-- Rows another sweep holds are skipped.
SELECT id, status, requester_id, type, job_id, expires_at, execute_before_at
FROM access_requests
WHERE (status = 'pending' AND expires_at <= :now)
   -- Those in an agent's hands come when its lease has lapsed: it cannot be renewed any more.
   OR (status = 'approved' AND execute_before_at <= :now
       AND NOT EXISTS (SELECT 1 FROM sync_jobs AS j
                       WHERE j.id = access_requests.job_id AND j.status = 'claimed'
                         AND j.claim_expires_at > :now))
ORDER BY created_at, id
LIMIT :limit
FOR UPDATE SKIP LOCKED;
