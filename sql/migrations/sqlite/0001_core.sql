-- People, access rules, requests, wraps, agents, jobs and the audit trail.

CREATE TABLE local_users (
  id TEXT CONSTRAINT local_users_pkey PRIMARY KEY,
  email TEXT NOT NULL,
  password_hash TEXT NOT NULL,
  display_name TEXT NOT NULL,
  disabled INTEGER NOT NULL CHECK (disabled IN (0, 1)),
  failed_login_count INTEGER NOT NULL,
  locked_until TEXT CHECK (locked_until GLOB '????-??-??T??:??:??.??????Z'),
  must_change_password INTEGER NOT NULL CHECK (must_change_password IN (0, 1)),
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  updated_at TEXT NOT NULL CHECK (updated_at GLOB '????-??-??T??:??:??.??????Z'),
  CONSTRAINT local_users_email_form CHECK (email = lower(email) AND length(trim(email)) > 0)
) STRICT;
CREATE UNIQUE INDEX local_users_email_key ON local_users (email);
CREATE INDEX local_users_newest_idx ON local_users (created_at DESC, id DESC);

CREATE TABLE sessions (
  id TEXT CONSTRAINT sessions_pkey PRIMARY KEY,
  user_id TEXT NOT NULL CONSTRAINT sessions_user_id_fkey REFERENCES local_users (id) ON DELETE CASCADE,
  token_hash BLOB NOT NULL,
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  expires_at TEXT NOT NULL CHECK (expires_at GLOB '????-??-??T??:??:??.??????Z'),
  idle_expires_at TEXT NOT NULL CHECK (idle_expires_at GLOB '????-??-??T??:??:??.??????Z'),
  last_mfa_at TEXT CHECK (last_mfa_at GLOB '????-??-??T??:??:??.??????Z'),
  revoked_at TEXT CHECK (revoked_at GLOB '????-??-??T??:??:??.??????Z'),
  ip TEXT,
  user_agent TEXT
) STRICT;
CREATE UNIQUE INDEX sessions_token_hash_key ON sessions (token_hash);
CREATE INDEX sessions_live_idx ON sessions (user_id, expires_at) WHERE revoked_at IS NULL;
CREATE INDEX sessions_expires_idx ON sessions (expires_at);

CREATE TABLE roles (
  id TEXT CONSTRAINT roles_pkey PRIMARY KEY,
  name TEXT NOT NULL,
  description TEXT NOT NULL,
  permissions TEXT NOT NULL CHECK (json_valid(permissions)),
  is_system INTEGER NOT NULL CHECK (is_system IN (0, 1)),
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  updated_at TEXT NOT NULL CHECK (updated_at GLOB '????-??-??T??:??:??.??????Z')
) STRICT;
CREATE UNIQUE INDEX roles_name_key ON roles (name);

CREATE TABLE user_roles (
  id TEXT CONSTRAINT user_roles_pkey PRIMARY KEY,
  user_id TEXT NOT NULL CONSTRAINT user_roles_user_id_fkey REFERENCES local_users (id) ON DELETE CASCADE,
  role_id TEXT NOT NULL CONSTRAINT user_roles_role_id_fkey REFERENCES roles (id) ON DELETE RESTRICT,
  scope TEXT NOT NULL CHECK (json_valid(scope)),
  granted_by TEXT NOT NULL,
  granted_at TEXT NOT NULL CHECK (granted_at GLOB '????-??-??T??:??:??.??????Z'),
  expires_at TEXT CHECK (expires_at GLOB '????-??-??T??:??:??.??????Z'),
  reason TEXT,
  CONSTRAINT user_roles_scope_form CHECK (json_type(scope) = 'object')
) STRICT;
CREATE INDEX user_roles_newest_idx ON user_roles (granted_at DESC, id DESC);
CREATE INDEX user_roles_user_idx ON user_roles (user_id);
CREATE INDEX user_roles_role_idx ON user_roles (role_id);

CREATE TABLE teams (
  id TEXT CONSTRAINT teams_pkey PRIMARY KEY,
  name TEXT NOT NULL,
  parent_team_id TEXT CONSTRAINT teams_parent_team_id_fkey REFERENCES teams (id) ON DELETE RESTRICT,
  status TEXT NOT NULL,
  description TEXT,
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  updated_at TEXT NOT NULL CHECK (updated_at GLOB '????-??-??T??:??:??.??????Z'),
  CONSTRAINT teams_name_form CHECK (length(trim(name)) > 0),
  CONSTRAINT teams_status_known CHECK (status IN ('active', 'archived'))
) STRICT;
CREATE UNIQUE INDEX teams_child_name_key ON teams (parent_team_id, name) WHERE parent_team_id IS NOT NULL;
CREATE UNIQUE INDEX teams_root_name_key ON teams (name) WHERE parent_team_id IS NULL;

CREATE TABLE team_members (
  team_id TEXT NOT NULL CONSTRAINT team_members_team_id_fkey REFERENCES teams (id) ON DELETE CASCADE,
  user_id TEXT NOT NULL CONSTRAINT team_members_user_id_fkey REFERENCES local_users (id) ON DELETE CASCADE,
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  created_by TEXT CONSTRAINT team_members_created_by_fkey REFERENCES local_users (id) ON DELETE SET NULL,
  CONSTRAINT team_members_pkey PRIMARY KEY (team_id, user_id)
) STRICT;
CREATE INDEX team_members_user_idx ON team_members (user_id);

CREATE TABLE projects (
  id TEXT CONSTRAINT projects_pkey PRIMARY KEY,
  name TEXT NOT NULL,
  team_id TEXT CONSTRAINT projects_team_id_fkey REFERENCES teams (id) ON DELETE SET NULL,
  status TEXT NOT NULL,
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  updated_at TEXT NOT NULL CHECK (updated_at GLOB '????-??-??T??:??:??.??????Z'),
  CONSTRAINT projects_status_known CHECK (status IN ('active', 'archived'))
) STRICT;
CREATE UNIQUE INDEX projects_name_key ON projects (name);
CREATE INDEX projects_team_idx ON projects (team_id) WHERE team_id IS NOT NULL;
CREATE INDEX projects_newest_idx ON projects (created_at DESC, id DESC);

CREATE TABLE environments (
  id TEXT CONSTRAINT environments_pkey PRIMARY KEY,
  project_id TEXT NOT NULL CONSTRAINT environments_project_id_fkey REFERENCES projects (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  type TEXT NOT NULL,
  kind TEXT NOT NULL,
  risk_level INTEGER NOT NULL,
  description TEXT,
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  updated_at TEXT NOT NULL CHECK (updated_at GLOB '????-??-??T??:??:??.??????Z'),
  deleted_at TEXT CHECK (deleted_at GLOB '????-??-??T??:??:??.??????Z'),
  CONSTRAINT environments_type_known CHECK (type IN ('dev', 'staging', 'uat', 'prod', 'other')),
  CONSTRAINT environments_kind_known CHECK (kind IN ('non_prod', 'prod')),
  CONSTRAINT environments_risk_range CHECK (risk_level BETWEEN 0 AND 4)
) STRICT;
-- A deleted environment keeps its row: requests point at it, and its kind must not be forgotten.
CREATE UNIQUE INDEX environments_project_name_key ON environments (project_id, name) WHERE deleted_at IS NULL;
CREATE INDEX environments_project_idx ON environments (project_id, created_at);

CREATE TABLE provider_connections (
  id TEXT CONSTRAINT provider_connections_pkey PRIMARY KEY,
  name TEXT NOT NULL,
  type TEXT NOT NULL,
  auth_method TEXT NOT NULL,
  scope TEXT NOT NULL CHECK (json_valid(scope)),
  status TEXT NOT NULL,
  cluster_name TEXT,
  description TEXT,
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  updated_at TEXT NOT NULL CHECK (updated_at GLOB '????-??-??T??:??:??.??????Z'),
  CONSTRAINT provider_connections_type_known
    CHECK (type IN ('aws-sm', 'vault', 'gcp-sm', 'azure-kv', 'kubernetes', 'file')),
  CONSTRAINT provider_connections_status_known CHECK (status IN ('active', 'disabled'))
) STRICT;
CREATE UNIQUE INDEX provider_connections_name_key ON provider_connections (name);
CREATE INDEX provider_connections_active_idx ON provider_connections (type) WHERE status = 'active';

CREATE TABLE secrets (
  id TEXT CONSTRAINT secrets_pkey PRIMARY KEY,
  cluster_name TEXT NOT NULL,
  provider_type TEXT NOT NULL,
  secret_ref TEXT NOT NULL,
  provider_connection_id TEXT
    CONSTRAINT secrets_provider_connection_id_fkey REFERENCES provider_connections (id) ON DELETE SET NULL,
  labels TEXT NOT NULL CHECK (json_valid(labels)),
  status TEXT NOT NULL,
  first_seen_at TEXT NOT NULL CHECK (first_seen_at GLOB '????-??-??T??:??:??.??????Z'),
  last_seen_at TEXT NOT NULL CHECK (last_seen_at GLOB '????-??-??T??:??:??.??????Z'),
  CONSTRAINT secrets_status_known CHECK (status IN ('present', 'missing'))
) STRICT;
-- The same path behind another connection is another secret.
CREATE UNIQUE INDEX secrets_identity_key ON secrets (provider_connection_id, cluster_name, provider_type, secret_ref)
  WHERE provider_connection_id IS NOT NULL;
CREATE UNIQUE INDEX secrets_unrouted_key ON secrets (cluster_name, provider_type, secret_ref)
  WHERE provider_connection_id IS NULL;
CREATE INDEX secrets_ref_idx ON secrets (provider_type, secret_ref);
CREATE INDEX secrets_newest_idx ON secrets (first_seen_at DESC, id DESC);

CREATE TABLE project_secrets (
  project_id TEXT NOT NULL CONSTRAINT project_secrets_project_id_fkey REFERENCES projects (id) ON DELETE CASCADE,
  secret_id TEXT NOT NULL CONSTRAINT project_secrets_secret_id_fkey REFERENCES secrets (id) ON DELETE CASCADE,
  environment_id TEXT CONSTRAINT project_secrets_environment_id_fkey REFERENCES environments (id),
  allowed_keys TEXT CHECK (allowed_keys IS NULL OR json_valid(allowed_keys)),
  allowed_ops TEXT NOT NULL CHECK (json_valid(allowed_ops)),
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  updated_at TEXT NOT NULL CHECK (updated_at GLOB '????-??-??T??:??:??.??????Z'),
  created_by TEXT,
  CONSTRAINT project_secrets_pkey PRIMARY KEY (project_id, secret_id)
) STRICT;
CREATE INDEX project_secrets_secret_idx ON project_secrets (secret_id);
CREATE INDEX project_secrets_environment_idx ON project_secrets (environment_id) WHERE environment_id IS NOT NULL;

CREATE TABLE workflow_definitions (
  id TEXT CONSTRAINT workflow_definitions_pkey PRIMARY KEY,
  name TEXT NOT NULL,
  description TEXT NOT NULL,
  min_approvers INTEGER NOT NULL,
  auto_approve INTEGER NOT NULL CHECK (auto_approve IN (0, 1)),
  approver_role_id TEXT
    CONSTRAINT workflow_definitions_approver_role_id_fkey REFERENCES roles (id) ON DELETE RESTRICT,
  wrap_ttl_created_seconds INTEGER NOT NULL,
  wrap_ttl_approved_seconds INTEGER NOT NULL,
  wrap_ttl_claimed_seconds INTEGER NOT NULL,
  request_ttl_seconds INTEGER NOT NULL,
  fill_ttl_seconds INTEGER NOT NULL,
  require_justification INTEGER NOT NULL CHECK (require_justification IN (0, 1)),
  allow_self_approval INTEGER NOT NULL CHECK (allow_self_approval IN (0, 1)),
  requires_security_approval INTEGER NOT NULL CHECK (requires_security_approval IN (0, 1)),
  scoped_policy_authorable INTEGER NOT NULL CHECK (scoped_policy_authorable IN (0, 1)),
  notification_channels TEXT NOT NULL CHECK (json_valid(notification_channels)),
  is_default INTEGER NOT NULL CHECK (is_default IN (0, 1)),
  enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
  is_system INTEGER NOT NULL CHECK (is_system IN (0, 1)),
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  updated_at TEXT NOT NULL CHECK (updated_at GLOB '????-??-??T??:??:??.??????Z'),
  -- Absent never means zero: nobody approves only where that was asked for.
  CONSTRAINT workflow_definitions_quorum_explicit
    CHECK ((auto_approve AND min_approvers = 0) OR (NOT auto_approve AND min_approvers >= 1)),
  CONSTRAINT workflow_definitions_ttls_positive CHECK (
    wrap_ttl_created_seconds > 0 AND wrap_ttl_approved_seconds > 0 AND wrap_ttl_claimed_seconds > 0
    AND request_ttl_seconds > 0 AND fill_ttl_seconds > 0)
) STRICT;
CREATE UNIQUE INDEX workflow_definitions_name_key ON workflow_definitions (name);
CREATE UNIQUE INDEX workflow_definitions_default_key ON workflow_definitions (is_default) WHERE is_default;
CREATE INDEX workflow_definitions_role_idx ON workflow_definitions (approver_role_id) WHERE approver_role_id IS NOT NULL;

CREATE TABLE policy_rules (
  id TEXT CONSTRAINT policy_rules_pkey PRIMARY KEY,
  name TEXT NOT NULL,
  selector TEXT NOT NULL CHECK (json_valid(selector)),
  workflow_id TEXT NOT NULL
    CONSTRAINT policy_rules_workflow_id_fkey REFERENCES workflow_definitions (id) ON DELETE RESTRICT,
  priority INTEGER NOT NULL,
  enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
  is_system INTEGER NOT NULL CHECK (is_system IN (0, 1)),
  direct_reveal_allowed INTEGER NOT NULL CHECK (direct_reveal_allowed IN (0, 1)),
  requires_mfa INTEGER NOT NULL CHECK (requires_mfa IN (0, 1)),
  reveal_ttl_seconds INTEGER NOT NULL,
  project_id TEXT CONSTRAINT policy_rules_project_id_fkey REFERENCES projects (id) ON DELETE CASCADE,
  team_id TEXT CONSTRAINT policy_rules_team_id_fkey REFERENCES teams (id) ON DELETE CASCADE,
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  updated_at TEXT NOT NULL CHECK (updated_at GLOB '????-??-??T??:??:??.??????Z'),
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
) STRICT;
CREATE INDEX policy_rules_order_idx ON policy_rules (priority DESC, created_at, id)
  WHERE enabled AND project_id IS NULL AND team_id IS NULL;
CREATE INDEX policy_rules_workflow_idx ON policy_rules (workflow_id);
CREATE INDEX policy_rules_project_idx ON policy_rules (project_id) WHERE project_id IS NOT NULL;
CREATE INDEX policy_rules_team_idx ON policy_rules (team_id) WHERE team_id IS NOT NULL;

-- The selector each change of a rule left behind. Readers of the audit trail see the names of its keys,
-- never what they were set to, so this stands apart from it; a deleted rule keeps its story.
CREATE TABLE policy_rule_selectors (
  change_id TEXT CONSTRAINT policy_rule_selectors_pkey PRIMARY KEY,
  policy_rule_id TEXT NOT NULL,
  selector TEXT NOT NULL CHECK (json_valid(selector)),
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z')
) STRICT;

CREATE TABLE platform_settings (
  key TEXT CONSTRAINT platform_settings_pkey PRIMARY KEY,
  value TEXT NOT NULL CHECK (json_valid(value)),
  updated_at TEXT NOT NULL CHECK (updated_at GLOB '????-??-??T??:??:??.??????Z'),
  updated_by TEXT,
  CONSTRAINT platform_settings_reserved_priority CHECK (
    key <> 'platform_reserved_priority'
    OR CAST(coalesce(value ->> 'value', '0') AS integer) BETWEEN 100 AND 1000000)
) STRICT;

CREATE TABLE agents (
  id TEXT CONSTRAINT agents_pkey PRIMARY KEY,
  name TEXT NOT NULL,
  scope TEXT NOT NULL CHECK (json_valid(scope)),
  status TEXT NOT NULL,
  secret_hash BLOB NOT NULL,
  public_key BLOB,
  public_key_algorithm TEXT,
  public_key_fingerprint TEXT,
  provider_connection_id TEXT
    CONSTRAINT agents_provider_connection_id_fkey REFERENCES provider_connections (id) ON DELETE RESTRICT,
  cluster_name TEXT,
  provider_type TEXT,
  region TEXT,
  agent_version TEXT,
  capabilities TEXT NOT NULL CHECK (json_valid(capabilities)),
  last_status TEXT,
  last_error TEXT,
  last_seen_at TEXT CHECK (last_seen_at GLOB '????-??-??T??:??:??.??????Z'),
  disabled_at TEXT CHECK (disabled_at GLOB '????-??-??T??:??:??.??????Z'),
  revoked_at TEXT CHECK (revoked_at GLOB '????-??-??T??:??:??.??????Z'),
  revoked_by TEXT,
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  updated_at TEXT NOT NULL CHECK (updated_at GLOB '????-??-??T??:??:??.??????Z'),
  CONSTRAINT agents_status_known
    CHECK (status IN ('active', 'enrolled', 'stale', 'error', 'disabled', 'revoked')),
  CONSTRAINT agents_key_algorithm_known CHECK (public_key_algorithm = 'x25519'),
  CONSTRAINT agents_revoked_once CHECK ((status = 'revoked') = (revoked_at IS NOT NULL))
) STRICT;
-- A revoked agent gives its name back.
CREATE UNIQUE INDEX agents_name_key ON agents (name) WHERE revoked_at IS NULL;
CREATE INDEX agents_connection_idx ON agents (provider_connection_id) WHERE provider_connection_id IS NOT NULL;
CREATE INDEX agents_seen_idx ON agents (last_seen_at) WHERE status = 'active';

CREATE TABLE agent_enrollment_tokens (
  id TEXT CONSTRAINT agent_enrollment_tokens_pkey PRIMARY KEY,
  provider_connection_id TEXT NOT NULL
    CONSTRAINT agent_enrollment_tokens_provider_connection_id_fkey
    REFERENCES provider_connections (id) ON DELETE CASCADE,
  name TEXT,
  token_hash BLOB NOT NULL,
  expected_cluster_name TEXT,
  expected_provider_type TEXT,
  expires_at TEXT NOT NULL CHECK (expires_at GLOB '????-??-??T??:??:??.??????Z'),
  consumed_at TEXT CHECK (consumed_at GLOB '????-??-??T??:??:??.??????Z'),
  consumed_by_agent_id TEXT
    CONSTRAINT agent_enrollment_tokens_consumed_by_agent_id_fkey REFERENCES agents (id) ON DELETE SET NULL,
  revoked_at TEXT CHECK (revoked_at GLOB '????-??-??T??:??:??.??????Z'),
  revoked_by TEXT,
  created_by TEXT NOT NULL,
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  CONSTRAINT agent_enrollment_tokens_lifetime CHECK (expires_at > created_at)
) STRICT;
CREATE UNIQUE INDEX agent_enrollment_tokens_hash_key ON agent_enrollment_tokens (token_hash);
CREATE INDEX agent_enrollment_tokens_connection_idx ON agent_enrollment_tokens (provider_connection_id);
CREATE INDEX agent_enrollment_tokens_agent_idx ON agent_enrollment_tokens (consumed_by_agent_id);

CREATE TABLE access_requests (
  id TEXT CONSTRAINT access_requests_pkey PRIMARY KEY,
  requester_id TEXT NOT NULL CONSTRAINT access_requests_requester_id_fkey REFERENCES local_users (id) ON DELETE RESTRICT,
  type TEXT NOT NULL,
  justification TEXT NOT NULL,
  status TEXT NOT NULL,
  workflow_id TEXT NOT NULL
    CONSTRAINT access_requests_workflow_id_fkey REFERENCES workflow_definitions (id) ON DELETE RESTRICT,
  matched_policy_rule_id TEXT
    CONSTRAINT access_requests_matched_policy_rule_id_fkey REFERENCES policy_rules (id) ON DELETE SET NULL,
  project_id TEXT CONSTRAINT access_requests_project_id_fkey REFERENCES projects (id) ON DELETE RESTRICT,
  environment_id TEXT CONSTRAINT access_requests_environment_id_fkey REFERENCES environments (id) ON DELETE RESTRICT,
  secret_id TEXT CONSTRAINT access_requests_secret_id_fkey REFERENCES secrets (id) ON DELETE RESTRICT,
  provider_connection_id TEXT
    CONSTRAINT access_requests_provider_connection_id_fkey REFERENCES provider_connections (id) ON DELETE RESTRICT,
  cluster_name TEXT,
  target_provider_type TEXT NOT NULL,
  target_provider_config TEXT NOT NULL CHECK (json_valid(target_provider_config)),
  target_secret_ref TEXT NOT NULL,
  target_keys TEXT NOT NULL CHECK (json_valid(target_keys)),
  target_scope TEXT NOT NULL CHECK (json_valid(target_scope)),
  snap_min_approvers INTEGER NOT NULL,
  snap_allow_self_approval INTEGER NOT NULL CHECK (snap_allow_self_approval IN (0, 1)),
  snap_approver_role_id TEXT,
  snap_requires_security_approval INTEGER NOT NULL CHECK (snap_requires_security_approval IN (0, 1)),
  snap_wrap_ttl_created_seconds INTEGER NOT NULL,
  snap_wrap_ttl_approved_seconds INTEGER NOT NULL,
  snap_wrap_ttl_claimed_seconds INTEGER NOT NULL,
  snap_request_ttl_seconds INTEGER NOT NULL,
  reject_reason TEXT,
  failure_reason TEXT,
  job_id TEXT,
  expires_at TEXT NOT NULL CHECK (expires_at GLOB '????-??-??T??:??:??.??????Z'),
  decided_at TEXT CHECK (decided_at GLOB '????-??-??T??:??:??.??????Z'),
  execute_before_at TEXT CHECK (execute_before_at GLOB '????-??-??T??:??:??.??????Z'),
  finished_at TEXT CHECK (finished_at GLOB '????-??-??T??:??:??.??????Z'),
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  updated_at TEXT NOT NULL CHECK (updated_at GLOB '????-??-??T??:??:??.??????Z'),
  CONSTRAINT access_requests_type_known CHECK (type IN ('read', 'patch')),
  CONSTRAINT access_requests_status_known
    CHECK (status IN ('pending', 'approved', 'rejected', 'cancelled', 'executed', 'failed', 'expired')),
  CONSTRAINT access_requests_justification_given CHECK (length(trim(justification)) > 0),
  -- An approved request always knows when it stops waiting for its agent.
  CONSTRAINT access_requests_approved_ends CHECK (status <> 'approved' OR execute_before_at IS NOT NULL)
) STRICT;
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
  id TEXT CONSTRAINT approvals_pkey PRIMARY KEY,
  request_id TEXT NOT NULL CONSTRAINT approvals_request_id_fkey REFERENCES access_requests (id) ON DELETE RESTRICT,
  approver_id TEXT NOT NULL CONSTRAINT approvals_approver_id_fkey REFERENCES local_users (id) ON DELETE RESTRICT,
  decision TEXT NOT NULL,
  lane TEXT NOT NULL,
  comment TEXT,
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  CONSTRAINT approvals_decision_known CHECK (decision IN ('approve', 'reject')),
  CONSTRAINT approvals_lane_known CHECK (lane IN ('source', 'security'))
) STRICT;
CREATE UNIQUE INDEX approvals_request_approver_key ON approvals (request_id, approver_id);
CREATE INDEX approvals_approver_idx ON approvals (approver_id);

CREATE TABLE sync_jobs (
  id TEXT CONSTRAINT sync_jobs_pkey PRIMARY KEY,
  job_type TEXT NOT NULL,
  status TEXT NOT NULL,
  correlation_id TEXT NOT NULL,
  request_id TEXT CONSTRAINT sync_jobs_request_id_fkey REFERENCES access_requests (id) ON DELETE RESTRICT,
  provider_connection_id TEXT
    CONSTRAINT sync_jobs_provider_connection_id_fkey REFERENCES provider_connections (id) ON DELETE RESTRICT,
  cluster_name TEXT,
  provider_type TEXT NOT NULL,
  payload TEXT NOT NULL CHECK (json_valid(payload)),
  attempts INTEGER NOT NULL,
  max_attempts INTEGER NOT NULL,
  run_after TEXT NOT NULL CHECK (run_after GLOB '????-??-??T??:??:??.??????Z'),
  claimed_by TEXT CONSTRAINT sync_jobs_claimed_by_fkey REFERENCES agents (id) ON DELETE RESTRICT,
  claimed_at TEXT CHECK (claimed_at GLOB '????-??-??T??:??:??.??????Z'),
  claim_expires_at TEXT CHECK (claim_expires_at GLOB '????-??-??T??:??:??.??????Z'),
  lease_token_hash BLOB,
  error TEXT,
  result TEXT CHECK (result IS NULL OR json_valid(result)),
  finished_at TEXT CHECK (finished_at GLOB '????-??-??T??:??:??.??????Z'),
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  updated_at TEXT NOT NULL CHECK (updated_at GLOB '????-??-??T??:??:??.??????Z'),
  CONSTRAINT sync_jobs_type_known CHECK (job_type IN ('sync', 'discover', 'verify', 'delete', 'patch', 'read')),
  CONSTRAINT sync_jobs_status_known CHECK (status IN ('queued', 'claimed', 'succeeded', 'failed', 'expired')),
  CONSTRAINT sync_jobs_claim_complete CHECK (
    status <> 'claimed'
    OR (claimed_by IS NOT NULL AND claim_expires_at IS NOT NULL AND lease_token_hash IS NOT NULL)),
  CONSTRAINT sync_jobs_attempts_range CHECK (attempts >= 0 AND max_attempts >= 1 AND attempts <= max_attempts)
) STRICT;
-- One live job for one request, whoever approves at the same time.
CREATE UNIQUE INDEX sync_jobs_request_key ON sync_jobs (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX sync_jobs_queue_idx ON sync_jobs (provider_connection_id, run_after, id) WHERE status = 'queued';
CREATE INDEX sync_jobs_lease_idx ON sync_jobs (claim_expires_at) WHERE status = 'claimed';
CREATE INDEX sync_jobs_correlation_idx ON sync_jobs (correlation_id);
CREATE INDEX sync_jobs_claimed_by_idx ON sync_jobs (claimed_by) WHERE claimed_by IS NOT NULL;

CREATE TABLE secret_wraps (
  id TEXT CONSTRAINT secret_wraps_pkey PRIMARY KEY,
  request_id TEXT NOT NULL CONSTRAINT secret_wraps_request_id_fkey REFERENCES access_requests (id) ON DELETE RESTRICT,
  environment_id TEXT CONSTRAINT secret_wraps_environment_id_fkey REFERENCES environments (id) ON DELETE RESTRICT,
  issued_via TEXT NOT NULL,
  key_name TEXT NOT NULL,
  encrypted_value BLOB NOT NULL,
  nonce BLOB NOT NULL,
  data_key_ciphertext BLOB NOT NULL,
  kms_key_id TEXT NOT NULL,
  algorithm TEXT NOT NULL,
  content_hmac BLOB NOT NULL,
  byte_length INTEGER NOT NULL,
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  expires_at TEXT NOT NULL CHECK (expires_at GLOB '????-??-??T??:??:??.??????Z'),
  consumed_at TEXT CHECK (consumed_at GLOB '????-??-??T??:??:??.??????Z'),
  consumed_by_agent TEXT
    CONSTRAINT secret_wraps_consumed_by_agent_fkey REFERENCES agents (id) ON DELETE RESTRICT,
  consumed_by_user TEXT
    CONSTRAINT secret_wraps_consumed_by_user_fkey REFERENCES local_users (id) ON DELETE RESTRICT,
  CONSTRAINT secret_wraps_issued_via_known CHECK (issued_via IN ('request', 'direct_reveal')),
  CONSTRAINT secret_wraps_algorithm_known CHECK (algorithm = 'AES-256-GCM-AADv1'),
  CONSTRAINT secret_wraps_length_range CHECK (byte_length BETWEEN 0 AND 65536),
  CONSTRAINT secret_wraps_single_shot CHECK (
    (consumed_at IS NULL AND consumed_by_agent IS NULL AND consumed_by_user IS NULL)
    OR (consumed_at IS NOT NULL AND consumed_by_agent IS NOT NULL AND consumed_by_user IS NULL)
    OR (consumed_at IS NOT NULL AND consumed_by_agent IS NULL AND consumed_by_user IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX secret_wraps_request_key ON secret_wraps (request_id, key_name);
CREATE INDEX secret_wraps_expiry_idx ON secret_wraps (expires_at, id);
CREATE INDEX secret_wraps_environment_idx ON secret_wraps (environment_id) WHERE environment_id IS NOT NULL;
CREATE INDEX secret_wraps_agent_idx ON secret_wraps (consumed_by_agent) WHERE consumed_by_agent IS NOT NULL;
CREATE INDEX secret_wraps_user_idx ON secret_wraps (consumed_by_user) WHERE consumed_by_user IS NOT NULL;

CREATE TABLE idempotency_keys (
  actor TEXT NOT NULL,
  key TEXT NOT NULL,
  route TEXT NOT NULL,
  body_sha256 BLOB NOT NULL,
  status INTEGER,
  response TEXT CHECK (response IS NULL OR json_valid(response)),
  created_at TEXT NOT NULL CHECK (created_at GLOB '????-??-??T??:??:??.??????Z'),
  expires_at TEXT NOT NULL CHECK (expires_at GLOB '????-??-??T??:??:??.??????Z'),
  CONSTRAINT idempotency_keys_pkey PRIMARY KEY (actor, key, route)
) STRICT;
CREATE INDEX idempotency_keys_expiry_idx ON idempotency_keys (expires_at);

CREATE TABLE audit_events (
  id TEXT CONSTRAINT audit_events_pkey PRIMARY KEY,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  resource TEXT NOT NULL,
  status TEXT NOT NULL,
  correlation_id TEXT NOT NULL,
  http_request_id TEXT,
  metadata TEXT NOT NULL CHECK (json_valid(metadata)),
  occurred_at TEXT NOT NULL CHECK (occurred_at GLOB '????-??-??T??:??:??.??????Z'),
  CONSTRAINT audit_events_status_known CHECK (status IN ('success', 'denied', 'failure'))
) STRICT;
CREATE INDEX audit_events_newest_idx ON audit_events (occurred_at DESC, id DESC);
CREATE INDEX audit_events_correlation_idx ON audit_events (correlation_id, occurred_at DESC, id DESC);
CREATE INDEX audit_events_actor_idx ON audit_events (actor, occurred_at DESC, id DESC);
CREATE INDEX audit_events_action_idx ON audit_events (action, occurred_at DESC, id DESC);
CREATE INDEX audit_events_resource_idx ON audit_events (resource, occurred_at DESC, id DESC);

-- REPLACE deletes without the trigger for deletion unless recursive_triggers is on.
CREATE TRIGGER audit_events_no_replace BEFORE INSERT ON audit_events
WHEN EXISTS (SELECT 1 FROM audit_events AS a WHERE a.id = NEW.id)
BEGIN
  SELECT RAISE(ABORT, 'audit_events is append-only');
END;
CREATE TRIGGER audit_events_no_update BEFORE UPDATE ON audit_events
BEGIN
  SELECT RAISE(ABORT, 'audit_events is append-only');
END;
CREATE TRIGGER audit_events_no_delete BEFORE DELETE ON audit_events
BEGIN
  SELECT RAISE(ABORT, 'audit_events is append-only');
END;
