COPY audit_events (id, actor, action, resource, status, correlation_id, http_request_id, metadata,
                   occurred_at)
FROM STDIN
