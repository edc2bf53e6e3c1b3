-- name: audit_insert :count
-- Appends one event.
INSERT INTO audit_events (id, actor, action, resource, status, correlation_id, http_request_id,
                          metadata, occurred_at)
VALUES (:id, :actor, :action, :resource, :status, :correlation_id, :http_request_id, :metadata,
        :now);

-- name: audit_list :many
-- Returns a page of events that match every given filter, newest first.
SELECT a.id, a.actor, a.action, a.resource, a.status, a.correlation_id, a.http_request_id,
       a.metadata, a.occurred_at
FROM audit_events AS a
WHERE (:actor IS NULL OR a.actor = :actor)
  AND (:action IS NULL OR a.action = :action)
  AND (:resource IS NULL OR a.resource = :resource)
  AND (:status IS NULL OR a.status = :status)
  AND (:correlation_id IS NULL OR a.correlation_id = :correlation_id)
  AND (:since IS NULL OR a.occurred_at >= :since)
  AND (:until IS NULL OR a.occurred_at < :until)
  AND (:before_at IS NULL OR (a.occurred_at, a.id) < (:before_at, :before_id))
ORDER BY a.occurred_at DESC, a.id DESC
LIMIT :limit;

-- name: audit_list_readings :many
-- Returns what this actor's readings of the trail since then filtered by, newest first.
SELECT metadata FROM audit_events
WHERE actor = :actor AND action = 'audit.read' AND occurred_at > :since
ORDER BY occurred_at DESC, id DESC
LIMIT 200;

-- name: audit_wrap_story :many
-- Returns what was done with one wrap of a request: made, retrieved. It outlives the wrap's row.
SELECT action, status FROM audit_events
WHERE correlation_id = :request_id AND resource = :resource AND status = 'success'
  AND action IN ('wrap.create', 'wrap.retrieve')
ORDER BY occurred_at DESC, id DESC
LIMIT 10;
