-- name: approval_insert :count
-- Records one person's vote; the unique index refuses a second one.
INSERT INTO approvals (id, request_id, approver_id, decision, lane, comment, created_at)
VALUES (:id, :request_id, :approver_id, :decision, 'source', :comment, :now);

-- name: approval_of :one
-- Returns this person's vote on the request, if they have cast one.
SELECT decision, created_at FROM approvals
WHERE request_id = :request_id AND approver_id = :approver_id;

-- name: approval_list :many
-- Returns the votes on a request, first vote first, and which voters are switched off.
SELECT v.id, v.approver_id, v.decision, v.lane, v.comment, v.created_at, u.email AS approver_email,
       u.display_name AS approver_name, u.disabled
FROM approvals AS v
JOIN local_users AS u ON u.id = v.approver_id
WHERE v.request_id = :request_id
ORDER BY v.created_at, v.id
LIMIT 1000;
