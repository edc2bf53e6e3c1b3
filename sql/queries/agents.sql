-- name: agent_find_credential :one
-- Returns what authenticates an agent and what it covers, or no row.
SELECT id, name, status, secret_hash, public_key, provider_connection_id, cluster_name,
       provider_type
FROM agents
WHERE id = :id;

-- name: agent_insert :count
-- Creates an agent; only the hash of its secret is stored.
INSERT INTO agents (id, name, scope, status, secret_hash, public_key, public_key_algorithm,
                    public_key_fingerprint, provider_connection_id, cluster_name, provider_type,
                    region, agent_version, capabilities, created_at, updated_at)
VALUES (:id, :name, :scope, :status, :secret_hash, :public_key, :public_key_algorithm,
        :public_key_fingerprint, :provider_connection_id, :cluster_name, :provider_type, :region,
        :agent_version, :capabilities, :now, :now);

-- name: agent_touch :count
-- Records a heartbeat; an enrolled or stale agent becomes active, a revoked one stays as it is.
UPDATE agents
SET last_seen_at = :now,
    status = CASE WHEN status IN ('enrolled', 'stale') THEN 'active' ELSE status END,
    last_status = coalesce(:last_status, last_status),
    agent_version = coalesce(:agent_version, agent_version),
    capabilities = coalesce(:capabilities, capabilities),
    updated_at = :now
WHERE id = :id AND status <> 'revoked';

-- name: agent_set_public_key :count
-- Registers or rotates the agent's X25519 key.
UPDATE agents
SET public_key = :public_key, public_key_algorithm = 'x25519',
    public_key_fingerprint = :public_key_fingerprint, updated_at = :now
WHERE id = :id AND status <> 'revoked';

-- name: agent_set_last_error :count
-- Keeps the sanitised text of the agent's last failed job.
UPDATE agents SET last_error = :last_error, updated_at = :now WHERE id = :id;

-- name: agent_revoke :count
-- Ends an agent's credential for good; 0 when it was revoked before or does not exist.
UPDATE agents
SET status = 'revoked', revoked_at = :now, revoked_by = :revoked_by, updated_at = :now
WHERE id = :id AND status <> 'revoked';

-- name: agent_find :one
-- Returns an agent as administrators see it, or no row.
SELECT a.id, a.name, a.status, a.scope, a.provider_connection_id, a.provider_type, a.cluster_name,
       a.region, a.agent_version, a.last_status, a.capabilities, a.last_seen_at, a.revoked_at,
       a.created_at, c.name AS provider_connection_name
FROM agents AS a
LEFT JOIN provider_connections AS c ON c.id = a.provider_connection_id
WHERE a.id = :id;

-- name: agent_list :many
-- Returns a page of agents that match every given filter, newest first.
SELECT a.id, a.name, a.status, a.scope, a.provider_connection_id, a.provider_type, a.cluster_name,
       a.region, a.agent_version, a.last_status, a.capabilities, a.last_seen_at, a.revoked_at,
       a.created_at, c.name AS provider_connection_name
FROM agents AS a
LEFT JOIN provider_connections AS c ON c.id = a.provider_connection_id
WHERE (:provider_connection_id IS NULL OR a.provider_connection_id = :provider_connection_id)
  AND (:status IS NULL OR a.status = :status)
  AND (:cluster_name IS NULL OR a.cluster_name = :cluster_name)
  AND (:provider_type IS NULL OR a.provider_type = :provider_type)
  AND (:before_at IS NULL OR (a.created_at, a.id) < (:before_at, :before_id))
ORDER BY a.created_at DESC, a.id DESC
LIMIT :limit;

-- name: agent_list_silent :many
-- Returns active agents without a sign of life since the cutoff; one never heard counts from birth.
SELECT id, name, last_seen_at, created_at
FROM agents
WHERE status = 'active' AND coalesce(last_seen_at, created_at) < :cutoff
ORDER BY coalesce(last_seen_at, created_at), id
LIMIT :limit;

-- name: agent_mark_stale :count
-- Marks an active agent stale if it is still silent.
UPDATE agents SET status = 'stale', updated_at = :now
WHERE id = :id AND status = 'active' AND coalesce(last_seen_at, created_at) < :cutoff;

-- name: agent_count_by_status :many
-- Returns how many agents there are in each status.
SELECT status, count(*) AS agents FROM agents GROUP BY status LIMIT 100;

-- name: enrollment_insert :count
-- Creates an enrolment token; only its hash is stored.
INSERT INTO agent_enrollment_tokens (id, provider_connection_id, name, token_hash,
    expected_cluster_name, expected_provider_type, expires_at, created_by, created_at)
VALUES (:id, :provider_connection_id, :name, :token_hash, :expected_cluster_name,
    :expected_provider_type, :expires_at, :created_by, :now);

-- name: enrollment_find_by_hash :one
-- Returns the enrolment token with its connection, or no row.
SELECT t.id, t.provider_connection_id, t.expected_cluster_name, t.expected_provider_type,
       t.expires_at, t.consumed_at, t.revoked_at, c.type AS connection_type,
       c.status AS connection_status, c.cluster_name AS connection_cluster_name
FROM agent_enrollment_tokens AS t
JOIN provider_connections AS c ON c.id = t.provider_connection_id
WHERE t.token_hash = :token_hash;

-- name: enrollment_consume :count
-- Spends an open token; 0 when it was spent, revoked or has expired.
UPDATE agent_enrollment_tokens
SET consumed_at = :now, consumed_by_agent_id = :agent_id
WHERE id = :id AND consumed_at IS NULL AND revoked_at IS NULL AND expires_at > :now;

-- name: enrollment_revoke :one
-- Revokes an open token and returns it; no row when it was used, revoked or does not exist.
UPDATE agent_enrollment_tokens
SET revoked_at = :now, revoked_by = :revoked_by
WHERE id = :id AND consumed_at IS NULL AND revoked_at IS NULL
RETURNING id, provider_connection_id;

-- name: enrollment_purge :count
-- Deletes up to a limit of enrolment tokens that ended before that, used or not, oldest first.
DELETE FROM agent_enrollment_tokens
WHERE id IN (SELECT t.id FROM agent_enrollment_tokens AS t
             WHERE t.expires_at <= :ended_before
             ORDER BY t.expires_at, t.id
             LIMIT :limit);
