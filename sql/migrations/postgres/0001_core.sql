-- People, access rules, requests, wraps, agents, jobs and the audit trail.

CREATE TABLE local_users (
  id uuid CONSTRAINT local_users_pkey PRIMARY KEY,
  email text NOT NULL,
  password_hash text NOT NULL,
  display_name text NOT NULL,
  disabled boolean NOT NULL,
  failed_login_count integer NOT NULL,
  locked_until timestamptz,
  must_change_password boolean NOT NULL,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  CONSTRAINT local_users_email_form CHECK (email = lower(email) AND length(trim(email)) > 0)
);
CREATE UNIQUE INDEX local_users_email_key ON local_users (email);
CREATE INDEX local_users_newest_idx ON local_users (created_at DESC, id DESC);

CREATE TABLE sessions (
  id uuid CONSTRAINT sessions_pkey PRIMARY KEY,
  user_id uuid NOT NULL CONSTRAINT sessions_user_id_fkey REFERENCES local_users (id) ON DELETE CASCADE,
  token_hash bytea NOT NULL,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  idle_expires_at timestamptz NOT NULL,
  last_mfa_at timestamptz,
  revoked_at timestamptz,
  ip text,
  user_agent text
);
CREATE UNIQUE INDEX sessions_token_hash_key ON sessions (token_hash);
CREATE INDEX sessions_live_idx ON sessions (user_id, expires_at) WHERE revoked_at IS NULL;
CREATE INDEX sessions_expires_idx ON sessions (expires_at);

CREATE TABLE roles (
  id uuid CONSTRAINT roles_pkey PRIMARY KEY,
  name text NOT NULL,
  description text NOT NULL,
  permissions jsonb NOT NULL,
  is_system boolean NOT NULL,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX roles_name_key ON roles (name);

CREATE TABLE user_roles (
  id uuid CONSTRAINT user_roles_pkey PRIMARY KEY,
  user_id uuid NOT NULL CONSTRAINT user_roles_user_id_fkey REFERENCES local_users (id) ON DELETE CASCADE,
  role_id uuid NOT NULL CONSTRAINT user_roles_role_id_fkey REFERENCES roles (id) ON DELETE RESTRICT,
  scope jsonb NOT NULL,
  granted_by text NOT NULL,
  granted_at timestamptz NOT NULL,
  expires_at timestamptz,
  reason text,
  CONSTRAINT user_roles_scope_form CHECK (jsonb_typeof(scope) = 'object')
);
CREATE INDEX user_roles_newest_idx ON user_roles (granted_at DESC, id DESC);
CREATE INDEX user_roles_user_idx ON user_roles (user_id);
CREATE INDEX user_roles_role_idx ON user_roles (role_id);

CREATE TABLE teams (
  id uuid CONSTRAINT teams_pkey PRIMARY KEY,
  name text NOT NULL,
  parent_team_id uuid CONSTRAINT teams_parent_team_id_fkey REFERENCES teams (id) ON DELETE RESTRICT,
  status text NOT NULL,
  description text,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  CONSTRAINT teams_name_form CHECK (length(trim(name)) > 0),
  CONSTRAINT teams_status_known CHECK (status IN ('active', 'archived'))
);
CREATE UNIQUE INDEX teams_child_name_key ON teams (parent_team_id, name) WHERE parent_team_id IS NOT NULL;
CREATE UNIQUE INDEX teams_root_name_key ON teams (name) WHERE parent_team_id IS NULL;

CREATE TABLE team_members (
  team_id uuid NOT NULL CONSTRAINT team_members_team_id_fkey REFERENCES teams (id) ON DELETE CASCADE,
  user_id uuid NOT NULL CONSTRAINT team_members_user_id_fkey REFERENCES local_users (id) ON DELETE CASCADE,
  created_at timestamptz NOT NULL,
  created_by uuid CONSTRAINT team_members_created_by_fkey REFERENCES local_users (id) ON DELETE SET NULL,
  CONSTRAINT team_members_pkey PRIMARY KEY (team_id, user_id)
);
CREATE INDEX team_members_user_idx ON team_members (user_id);

CREATE TABLE projects (
  id uuid CONSTRAINT projects_pkey PRIMARY KEY,
  name text NOT NULL,
  team_id uuid CONSTRAINT projects_team_id_fkey REFERENCES teams (id) ON DELETE SET NULL,
  status text NOT NULL,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  CONSTRAINT projects_status_known CHECK (status IN ('active', 'archived'))
);
CREATE UNIQUE INDEX projects_name_key ON projects (name);
CREATE INDEX projects_team_idx ON projects (team_id) WHERE team_id IS NOT NULL;
CREATE INDEX projects_newest_idx ON projects (created_at DESC, id DESC);

CREATE TABLE environments (
  id uuid CONSTRAINT environments_pkey PRIMARY KEY,
  project_id uuid NOT NULL CONSTRAINT environments_project_id_fkey REFERENCES projects (id) ON DELETE CASCADE,
  name text NOT NULL,
  type text NOT NULL,
  kind text NOT NULL,
  risk_level smallint NOT NULL,
  description text,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  deleted_at timestamptz,
  CONSTRAINT environments_type_known CHECK (type IN ('dev', 'staging', 'uat', 'prod', 'other')),
  CONSTRAINT environments_kind_known CHECK (kind IN ('non_prod', 'prod')),
  CONSTRAINT environments_risk_range CHECK (risk_level BETWEEN 0 AND 4)
);
-- A deleted environment keeps its row: requests point at it, and its kind must not be forgotten.
CREATE UNIQUE INDEX environments_project_name_key ON environments (project_id, name) WHERE deleted_at IS NULL;
CREATE INDEX environments_project_idx ON environments (project_id, created_at);

CREATE TABLE provider_connections (
  id uuid CONSTRAINT provider_connections_pkey PRIMARY KEY,
  name text NOT NULL,
  type text NOT NULL,
  auth_method text NOT NULL,
  scope jsonb NOT NULL,
  status text NOT NULL,
  cluster_name text,
  description text,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  CONSTRAINT provider_connections_type_known
    CHECK (type IN ('aws-sm', 'vault', 'gcp-sm', 'azure-kv', 'kubernetes', 'file')),
  CONSTRAINT provider_connections_status_known CHECK (status IN ('active', 'disabled'))
);
CREATE UNIQUE INDEX provider_connections_name_key ON provider_connections (name);
CREATE INDEX provider_connections_active_idx ON provider_connections (type) WHERE status = 'active';

CREATE TABLE secrets (
  id uuid CONSTRAINT secrets_pkey PRIMARY KEY,
  cluster_name text NOT NULL,
  provider_type text NOT NULL,
  secret_ref text NOT NULL,
  provider_connection_id uuid
    CONSTRAINT secrets_provider_connection_id_fkey REFERENCES provider_connections (id) ON DELETE SET NULL,
  labels jsonb NOT NULL,
  status text NOT NULL,
  first_seen_at timestamptz NOT NULL,
  last_seen_at timestamptz NOT NULL,
  CONSTRAINT secrets_status_known CHECK (status IN ('present', 'missing'))
);
-- The same path behind another connection is another secret.
CREATE UNIQUE INDEX secrets_identity_key ON secrets (provider_connection_id, cluster_name, provider_type, secret_ref)
  WHERE provider_connection_id IS NOT NULL;
CREATE UNIQUE INDEX secrets_unrouted_key ON secrets (cluster_name, provider_type, secret_ref)
  WHERE provider_connection_id IS NULL;
CREATE INDEX secrets_ref_idx ON secrets (provider_type, secret_ref);
CREATE INDEX secrets_newest_idx ON secrets (first_seen_at DESC, id DESC);

CREATE TABLE project_secrets (
  project_id uuid NOT NULL CONSTRAINT project_secrets_project_id_fkey REFERENCES projects (id) ON DELETE CASCADE,
  secret_id uuid NOT NULL CONSTRAINT project_secrets_secret_id_fkey REFERENCES secrets (id) ON DELETE CASCADE,
  environment_id uuid CONSTRAINT project_secrets_environment_id_fkey REFERENCES environments (id),
  allowed_keys jsonb,
  allowed_ops jsonb NOT NULL,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  created_by text,
  CONSTRAINT project_secrets_pkey PRIMARY KEY (project_id, secret_id)
);
CREATE INDEX project_secrets_secret_idx ON project_secrets (secret_id);
CREATE INDEX project_secrets_environment_idx ON project_secrets (environment_id) WHERE environment_id IS NOT NULL;

CREATE TABLE workflow_definitions (
  id uuid CONSTRAINT workflow_definitions_pkey PRIMARY KEY,
  name text NOT NULL,
  description text NOT NULL,
  min_approvers integer NOT NULL,
  auto_approve boolean NOT NULL,
  approver_role_id uuid
    CONSTRAINT workflow_definitions_approver_role_id_fkey REFERENCES roles (id) ON DELETE RESTRICT,
  wrap_ttl_created_seconds integer NOT NULL,
  wrap_ttl_approved_seconds integer NOT NULL,
  wrap_ttl_claimed_seconds integer NOT NULL,
  request_ttl_seconds integer NOT NULL,
  fill_ttl_seconds integer NOT NULL,
  require_justification boolean NOT NULL,
  allow_self_approval boolean NOT NULL,
  requires_security_approval boolean NOT NULL,
  scoped_policy_authorable boolean NOT NULL,
  notification_channels jsonb NOT NULL,
  is_default boolean NOT NULL,
  enabled boolean NOT NULL,
  is_system boolean NOT NULL,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  -- Absent never means zero: nobody approves only where that was asked for.
  CONSTRAINT workflow_definitions_quorum_explicit
    CHECK ((auto_approve AND min_approvers = 0) OR (NOT auto_approve AND min_approvers >= 1)),
  CONSTRAINT workflow_definitions_ttls_positive CHECK (
    wrap_ttl_created_seconds > 0 AND wrap_ttl_approved_seconds > 0 AND wrap_ttl_claimed_seconds > 0
    AND request_ttl_seconds > 0 AND fill_ttl_seconds > 0)
);
CREATE UNIQUE INDEX workflow_definitions_name_key ON workflow_definitions (name);
CREATE UNIQUE INDEX workflow_definitions_default_key ON workflow_definitions (is_default) WHERE is_default;
CREATE INDEX workflow_definitions_role_idx ON workflow_definitions (approver_role_id) WHERE approver_role_id IS NOT NULL;

CREATE TABLE policy_rules (
  id uuid CONSTRAINT policy_rules_pkey PRIMARY KEY,
  name text NOT NULL,
  selector jsonb NOT NULL,
  workflow_id uuid NOT NULL
    CONSTRAINT policy_rules_workflow_id_fkey REFERENCES workflow_definitions (id) ON DELETE RESTRICT,
  priority integer NOT NULL,
  enabled boolean NOT NULL,
  is_system boolean NOT NULL,
  direct_reveal_allowed boolean NOT NULL,
  requires_mfa boolean NOT NULL,
  reveal_ttl_seconds integer NOT NULL,
  project_id uuid CONSTRAINT policy_rules_project_id_fkey REFERENCES projects (id) ON DELETE CASCADE,
  team_id uuid CONSTRAINT policy_rules_team_id_fkey REFERENCES teams (id) ON DELETE CASCADE,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  CONSTRAINT policy_rules_one_anchor CHECK (project_id IS NULL OR team_id IS NULL),
  CONSTRAINT policy_rules_project_pinned CHECK (
    project_id IS NULL
    OR coalesce(selector ->> 'project_id', CAST(project_id AS text)) = CAST(project_id AS text)),
  CONSTRAINT policy_rules_project_non_prod CHECK (
    project_id IS NULL OR coalesce(selector ->> 'environment_kind', '') = 'non_prod'
    OR selector ->> 'environment_id' IS NOT NULL),
  CONSTRAINT policy_rules_team_unpinned CHECK (
    team_id IS NULL
    OR coalesce(selector ->> 'project_id', selector ->> 'environment_id', selector ->> 'team_id') IS NULL),
  CONSTRAINT policy_rules_team_non_prod CHECK (
    team_id IS NULL OR coalesce(selector ->> 'environment_kind', '') = 'non_prod'),
  CONSTRAINT policy_rules_reveal_ttl_range CHECK (reveal_ttl_seconds BETWEEN 10 AND 300)
);
CREATE INDEX policy_rules_order_idx ON policy_rules (priority DESC, created_at, id)
  WHERE enabled AND project_id IS NULL AND team_id IS NULL;
CREATE INDEX policy_rules_workflow_idx ON policy_rules (workflow_id);
CREATE INDEX policy_rules_project_idx ON policy_rules (project_id) WHERE project_id IS NOT NULL;
CREATE INDEX policy_rules_team_idx ON policy_rules (team_id) WHERE team_id IS NOT NULL;

-- The selector each change of a rule left behind. Readers of the audit trail see the names of its keys,
-- never what they were set to, so this stands apart from it; a deleted rule keeps its story.
CREATE TABLE policy_rule_selectors (
  change_id uuid CONSTRAINT policy_rule_selectors_pkey PRIMARY KEY,
  policy_rule_id uuid NOT NULL,
  selector jsonb NOT NULL,
  created_at timestamptz NOT NULL
);

CREATE TABLE platform_settings (
  key text CONSTRAINT platform_settings_pkey PRIMARY KEY,
  value jsonb NOT NULL,
  updated_at timestamptz NOT NULL,
  updated_by text,
  CONSTRAINT platform_settings_reserved_priority CHECK (
    key <> 'platform_reserved_priority'
    OR CAST(coalesce(value ->> 'value', '0') AS integer) BETWEEN 100 AND 1000000)
);

CREATE TABLE agents (
  id uuid CONSTRAINT agents_pkey PRIMARY KEY,
  name text NOT NULL,
  scope jsonb NOT NULL,
  status text NOT NULL,
  secret_hash bytea NOT NULL,
  public_key bytea,
  public_key_algorithm text,
  public_key_fingerprint text,
  provider_connection_id uuid
    CONSTRAINT agents_provider_connection_id_fkey REFERENCES provider_connections (id) ON DELETE RESTRICT,
  cluster_name text,
  provider_type text,
  region text,
  agent_version text,
  capabilities jsonb NOT NULL,
  last_status text,
  last_error text,
  last_seen_at timestamptz,
  disabled_at timestamptz,
  revoked_at timestamptz,
  revoked_by text,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  CONSTRAINT agents_status_known
    CHECK (status IN ('active', 'enrolled', 'stale', 'error', 'disabled', 'revoked')),
  CONSTRAINT agents_key_algorithm_known CHECK (public_key_algorithm = 'x25519'),
  CONSTRAINT agents_revoked_once CHECK ((status = 'revoked') = (revoked_at IS NOT NULL))
);
-- A revoked agent gives its name back.
CREATE UNIQUE INDEX agents_name_key ON agents (name) WHERE revoked_at IS NULL;
CREATE INDEX agents_connection_idx ON agents (provider_connection_id) WHERE provider_connection_id IS NOT NULL;
CREATE INDEX agents_seen_idx ON agents (last_seen_at) WHERE status = 'active';

CREATE TABLE agent_enrollment_tokens (
  id uuid CONSTRAINT agent_enrollment_tokens_pkey PRIMARY KEY,
  provider_connection_id uuid NOT NULL
    CONSTRAINT agent_enrollment_tokens_provider_connection_id_fkey
    REFERENCES provider_connections (id) ON DELETE CASCADE,
  name text,
  token_hash bytea NOT NULL,
  expected_cluster_name text,
  expected_provider_type text,
  expires_at timestamptz NOT NULL,
  consumed_at timestamptz,
  consumed_by_agent_id uuid
    CONSTRAINT agent_enrollment_tokens_consumed_by_agent_id_fkey REFERENCES agents (id) ON DELETE SET NULL,
  revoked_at timestamptz,
  revoked_by text,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL,
  CONSTRAINT agent_enrollment_tokens_lifetime CHECK (expires_at > created_at)
);
CREATE UNIQUE INDEX agent_enrollment_tokens_hash_key ON agent_enrollment_tokens (token_hash);
CREATE INDEX agent_enrollment_tokens_connection_idx ON agent_enrollment_tokens (provider_connection_id);
CREATE INDEX agent_enrollment_tokens_agent_idx ON agent_enrollment_tokens (consumed_by_agent_id);

CREATE TABLE access_requests (
  id uuid CONSTRAINT access_requests_pkey PRIMARY KEY,
  requester_id uuid NOT NULL CONSTRAINT access_requests_requester_id_fkey REFERENCES local_users (id) ON DELETE RESTRICT,
  type text NOT NULL,
  justification text NOT NULL,
  status text NOT NULL,
  workflow_id uuid NOT NULL
    CONSTRAINT access_requests_workflow_id_fkey REFERENCES workflow_definitions (id) ON DELETE RESTRICT,
  matched_policy_rule_id uuid
    CONSTRAINT access_requests_matched_policy_rule_id_fkey REFERENCES policy_rules (id) ON DELETE SET NULL,
  project_id uuid CONSTRAINT access_requests_project_id_fkey REFERENCES projects (id) ON DELETE RESTRICT,
  environment_id uuid CONSTRAINT access_requests_environment_id_fkey REFERENCES environments (id) ON DELETE RESTRICT,
  secret_id uuid CONSTRAINT access_requests_secret_id_fkey REFERENCES secrets (id) ON DELETE RESTRICT,
  provider_connection_id uuid
    CONSTRAINT access_requests_provider_connection_id_fkey REFERENCES provider_connections (id) ON DELETE RESTRICT,
  cluster_name text,
  target_provider_type text NOT NULL,
  target_provider_config jsonb NOT NULL,
  target_secret_ref text NOT NULL,
  target_keys jsonb NOT NULL,
  target_scope jsonb NOT NULL,
  snap_min_approvers integer NOT NULL,
  snap_allow_self_approval boolean NOT NULL,
  snap_approver_role_id uuid,
  snap_requires_security_approval boolean NOT NULL,
  snap_wrap_ttl_created_seconds integer NOT NULL,
  snap_wrap_ttl_approved_seconds integer NOT NULL,
  snap_wrap_ttl_claimed_seconds integer NOT NULL,
  snap_request_ttl_seconds integer NOT NULL,
  reject_reason text,
  failure_reason text,
  job_id uuid,
  expires_at timestamptz NOT NULL,
  decided_at timestamptz,
  execute_before_at timestamptz,
  finished_at timestamptz,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  CONSTRAINT access_requests_type_known CHECK (type IN ('read', 'patch')),
  CONSTRAINT access_requests_status_known
    CHECK (status IN ('pending', 'approved', 'rejected', 'cancelled', 'executed', 'failed', 'expired')),
  CONSTRAINT access_requests_justification_given CHECK (length(trim(justification)) > 0),
  -- An approved request always knows when it stops waiting for its agent.
  CONSTRAINT access_requests_approved_ends CHECK (status <> 'approved' OR execute_before_at IS NOT NULL)
);
CREATE INDEX access_requests_newest_idx ON access_requests (created_at DESC, id DESC);
CREATE INDEX access_requests_status_idx ON access_requests (status, created_at DESC, id DESC);
CREATE INDEX access_requests_requester_idx ON access_requests (requester_id, created_at DESC, id DESC);
CREATE INDEX access_requests_project_idx ON access_requests (project_id, created_at DESC, id DESC) WHERE project_id IS NOT NULL;
CREATE INDEX access_requests_pending_expiry_idx ON access_requests (expires_at) WHERE status = 'pending';
CREATE INDEX access_requests_approved_expiry_idx ON access_requests (execute_before_at) WHERE status = 'approved';
CREATE INDEX access_requests_workflow_idx ON access_requests (workflow_id);
CREATE INDEX access_requests_rule_idx ON access_requests (matched_policy_rule_id) WHERE matched_policy_rule_id IS NOT NULL;
CREATE INDEX access_requests_environment_idx ON access_requests (environment_id) WHERE environment_id IS NOT NULL;
CREATE INDEX access_requests_secret_idx ON access_requests (secret_id) WHERE secret_id IS NOT NULL;
CREATE INDEX access_requests_connection_idx ON access_requests (provider_connection_id) WHERE provider_connection_id IS NOT NULL;

CREATE TABLE approvals (
  id uuid CONSTRAINT approvals_pkey PRIMARY KEY,
  request_id uuid NOT NULL CONSTRAINT approvals_request_id_fkey REFERENCES access_requests (id) ON DELETE RESTRICT,
  approver_id uuid NOT NULL CONSTRAINT approvals_approver_id_fkey REFERENCES local_users (id) ON DELETE RESTRICT,
  decision text NOT NULL,
  lane text NOT NULL,
  comment text,
  created_at timestamptz NOT NULL,
  CONSTRAINT approvals_decision_known CHECK (decision IN ('approve', 'reject')),
  CONSTRAINT approvals_lane_known CHECK (lane IN ('source', 'security'))
);
CREATE UNIQUE INDEX approvals_request_approver_key ON approvals (request_id, approver_id);
CREATE INDEX approvals_approver_idx ON approvals (approver_id);

CREATE TABLE sync_jobs (
  id uuid CONSTRAINT sync_jobs_pkey PRIMARY KEY,
  job_type text NOT NULL,
  status text NOT NULL,
  correlation_id uuid NOT NULL,
  request_id uuid CONSTRAINT sync_jobs_request_id_fkey REFERENCES access_requests (id) ON DELETE RESTRICT,
  provider_connection_id uuid
    CONSTRAINT sync_jobs_provider_connection_id_fkey REFERENCES provider_connections (id) ON DELETE RESTRICT,
  cluster_name text,
  provider_type text NOT NULL,
  payload jsonb NOT NULL,
  attempts integer NOT NULL,
  max_attempts integer NOT NULL,
  run_after timestamptz NOT NULL,
  claimed_by uuid CONSTRAINT sync_jobs_claimed_by_fkey REFERENCES agents (id) ON DELETE RESTRICT,
  claimed_at timestamptz,
  claim_expires_at timestamptz,
  lease_token_hash bytea,
  error text,
  result jsonb,
  finished_at timestamptz,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  CONSTRAINT sync_jobs_type_known CHECK (job_type IN ('sync', 'discover', 'verify', 'delete', 'patch', 'read')),
  CONSTRAINT sync_jobs_status_known CHECK (status IN ('queued', 'claimed', 'succeeded', 'failed', 'expired')),
  CONSTRAINT sync_jobs_claim_complete CHECK (
    status <> 'claimed'
    OR (claimed_by IS NOT NULL AND claim_expires_at IS NOT NULL AND lease_token_hash IS NOT NULL)),
  CONSTRAINT sync_jobs_attempts_range CHECK (attempts >= 0 AND max_attempts >= 1 AND attempts <= max_attempts)
);
-- One live job for one request, whoever approves at the same time.
CREATE UNIQUE INDEX sync_jobs_request_key ON sync_jobs (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX sync_jobs_queue_idx ON sync_jobs (provider_connection_id, run_after, id) WHERE status = 'queued';
CREATE INDEX sync_jobs_lease_idx ON sync_jobs (claim_expires_at) WHERE status = 'claimed';
CREATE INDEX sync_jobs_correlation_idx ON sync_jobs (correlation_id);
CREATE INDEX sync_jobs_claimed_by_idx ON sync_jobs (claimed_by) WHERE claimed_by IS NOT NULL;

CREATE TABLE secret_wraps (
  id uuid CONSTRAINT secret_wraps_pkey PRIMARY KEY,
  request_id uuid NOT NULL CONSTRAINT secret_wraps_request_id_fkey REFERENCES access_requests (id) ON DELETE RESTRICT,
  environment_id uuid CONSTRAINT secret_wraps_environment_id_fkey REFERENCES environments (id) ON DELETE RESTRICT,
  issued_via text NOT NULL,
  key_name text NOT NULL,
  encrypted_value bytea NOT NULL,
  nonce bytea NOT NULL,
  data_key_ciphertext bytea NOT NULL,
  kms_key_id text NOT NULL,
  algorithm text NOT NULL,
  content_hmac bytea NOT NULL,
  byte_length integer NOT NULL,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  consumed_at timestamptz,
  consumed_by_agent uuid
    CONSTRAINT secret_wraps_consumed_by_agent_fkey REFERENCES agents (id) ON DELETE RESTRICT,
  consumed_by_user uuid
    CONSTRAINT secret_wraps_consumed_by_user_fkey REFERENCES local_users (id) ON DELETE RESTRICT,
  CONSTRAINT secret_wraps_issued_via_known CHECK (issued_via IN ('request', 'direct_reveal')),
  CONSTRAINT secret_wraps_algorithm_known CHECK (algorithm = 'AES-256-GCM-AADv1'),
  CONSTRAINT secret_wraps_length_range CHECK (byte_length BETWEEN 0 AND 65536),
  CONSTRAINT secret_wraps_single_shot CHECK (
    (consumed_at IS NULL AND consumed_by_agent IS NULL AND consumed_by_user IS NULL)
    OR (consumed_at IS NOT NULL AND consumed_by_agent IS NOT NULL AND consumed_by_user IS NULL)
    OR (consumed_at IS NOT NULL AND consumed_by_agent IS NULL AND consumed_by_user IS NOT NULL))
);
CREATE UNIQUE INDEX secret_wraps_request_key ON secret_wraps (request_id, key_name);
CREATE INDEX secret_wraps_expiry_idx ON secret_wraps (expires_at, id);
CREATE INDEX secret_wraps_environment_idx ON secret_wraps (environment_id) WHERE environment_id IS NOT NULL;
CREATE INDEX secret_wraps_agent_idx ON secret_wraps (consumed_by_agent) WHERE consumed_by_agent IS NOT NULL;
CREATE INDEX secret_wraps_user_idx ON secret_wraps (consumed_by_user) WHERE consumed_by_user IS NOT NULL;

CREATE TABLE idempotency_keys (
  actor text NOT NULL,
  key text NOT NULL,
  route text NOT NULL,
  body_sha256 bytea NOT NULL,
  status integer,
  response jsonb,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  CONSTRAINT idempotency_keys_pkey PRIMARY KEY (actor, key, route)
);
CREATE INDEX idempotency_keys_expiry_idx ON idempotency_keys (expires_at);

CREATE TABLE audit_events (
  id uuid CONSTRAINT audit_events_pkey PRIMARY KEY,
  actor text NOT NULL,
  action text NOT NULL,
  resource text NOT NULL,
  status text NOT NULL,
  correlation_id uuid NOT NULL,
  http_request_id text,
  metadata jsonb NOT NULL,
  occurred_at timestamptz NOT NULL,
  CONSTRAINT audit_events_status_known CHECK (status IN ('success', 'denied', 'failure'))
);
CREATE INDEX audit_events_newest_idx ON audit_events (occurred_at DESC, id DESC);
CREATE INDEX audit_events_correlation_idx ON audit_events (correlation_id, occurred_at DESC, id DESC);
CREATE INDEX audit_events_actor_idx ON audit_events (actor, occurred_at DESC, id DESC);
CREATE INDEX audit_events_action_idx ON audit_events (action, occurred_at DESC, id DESC);
CREATE INDEX audit_events_resource_idx ON audit_events (resource, occurred_at DESC, id DESC);

CREATE FUNCTION audit_events_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'audit_events is append-only';
END
$$;
CREATE TRIGGER audit_events_no_update BEFORE UPDATE ON audit_events
  FOR EACH ROW EXECUTE FUNCTION audit_events_refuse();
CREATE TRIGGER audit_events_no_delete BEFORE DELETE ON audit_events
  FOR EACH ROW EXECUTE FUNCTION audit_events_refuse();
CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON audit_events
  FOR EACH STATEMENT EXECUTE FUNCTION audit_events_refuse();
