-- An organisation of the given sizes, as it would be after half a year: people, teams six deep, projects with
-- environments and bindings, grants of every kind of scope, rules of every anchor, and requests of which
-- one or two in a hundred are open. Ids say what they are of and count from one, so rows find each other.

SELECT setseed(0.25);

CREATE FUNCTION pg_temp.made_id(kind text, number bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT CAST(substr(md5(kind), 1, 8) || '-0000-7000-8000-' || lpad(to_hex(number), 12, '0') AS uuid)
$$;

CREATE FUNCTION pg_temp.ref_of(project bigint, secret bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT 'team-' || (1 + project * 7919 %% %(teams)s) || '/project-' || project || '/secret-' || secret
$$;

-- One project in a hundred has its secrets in another kind of store.
CREATE FUNCTION pg_temp.provider_of(project bigint, secret bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN project %% 100 = 0 THEN 'kubernetes' WHEN secret = 5 THEN 'aws-sm' ELSE 'vault' END
$$;

CREATE FUNCTION pg_temp.cluster_of(project bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN project %% 200 = 0 THEN 'lab' WHEN project %% 3 = 0 THEN 'west' ELSE 'east' END
$$;

INSERT INTO local_users (id, email, password_hash, display_name, disabled, failed_login_count,
                         must_change_password, created_at, updated_at)
SELECT pg_temp.made_id('user', n), 'person-' || n || '@scale.example', 'no password fits', 'Person ' || n,
       n %% 50 = 0, 0, false, m.at, m.at
FROM generate_series(1, %(users)s) AS n
CROSS JOIN LATERAL (SELECT %(now)s - interval '180 days' - n * interval '1 minute') AS m (at);

INSERT INTO sessions (id, user_id, token_hash, created_at, expires_at, idle_expires_at, revoked_at)
SELECT pg_temp.made_id('session', n), pg_temp.made_id('user', 1 + n %% %(users)s), sha256(CAST('s' || n AS bytea)),
       m.at, m.at + interval '8 hours', m.at + interval '30 minutes',
       CASE WHEN n %% 3 = 0 THEN m.at + interval '1 hour' END
FROM generate_series(1, 4 * %(users)s) AS n
CROSS JOIN LATERAL (SELECT %(now)s - n * interval '1 minute') AS m (at);

-- Each team has three below it: 500 of them stand six deep.
INSERT INTO teams (id, name, parent_team_id, status, created_at, updated_at)
SELECT pg_temp.made_id('team', n), 'scale-team-' || n,
       CASE WHEN n > 3 THEN pg_temp.made_id('team', (n - 1) / 3) END, 'active', %(now)s, %(now)s
FROM generate_series(1, %(teams)s) AS n;

INSERT INTO projects (id, name, team_id, status, created_at, updated_at)
SELECT pg_temp.made_id('project', n), 'scale-project-' || n,
       pg_temp.made_id('team', 1 + n * 7919 %% %(teams)s), 'active', m.at, m.at
FROM generate_series(1, %(projects)s) AS n
CROSS JOIN LATERAL (SELECT %(now)s - interval '180 days' - n * interval '1 minute') AS m (at);

INSERT INTO environments (id, project_id, name, type, kind, risk_level, created_at, updated_at)
SELECT pg_temp.made_id('environment', 3 * n + k), pg_temp.made_id('project', n),
       (ARRAY['dev', 'staging', 'prod'])[k], (ARRAY['dev', 'staging', 'prod'])[k],
       (ARRAY['non_prod', 'non_prod', 'prod'])[k], k, %(now)s, %(now)s
FROM generate_series(1, %(projects)s) AS n
CROSS JOIN generate_series(1, 3) AS k;

INSERT INTO provider_connections (id, name, type, auth_method, scope, status, created_at, updated_at)
SELECT pg_temp.made_id('connection', n), 'scale-' || c.type, c.type, 'default', '{}', 'active', %(now)s, %(now)s
FROM unnest(ARRAY['vault', 'aws-sm', 'kubernetes']) WITH ORDINALITY AS c (type, n);

INSERT INTO secrets (id, cluster_name, provider_type, secret_ref, provider_connection_id, labels, status,
                     first_seen_at, last_seen_at)
SELECT pg_temp.made_id('secret', 5 * n + k), pg_temp.cluster_of(n), c.type, pg_temp.ref_of(n, k), c.id, '{}',
       'present', %(now)s, %(now)s
FROM generate_series(1, %(projects)s) AS n
CROSS JOIN generate_series(1, 5) AS k
JOIN provider_connections AS c ON c.name = 'scale-' || pg_temp.provider_of(n, k);

INSERT INTO project_secrets (project_id, secret_id, environment_id, allowed_keys, allowed_ops, created_at,
                             updated_at)
SELECT pg_temp.made_id('project', n), pg_temp.made_id('secret', 5 * n + k), NULL, NULL, '["read", "patch"]',
       %(now)s, %(now)s
FROM generate_series(1, %(projects)s) AS n
CROSS JOIN generate_series(1, 5) AS k;

INSERT INTO roles (id, name, description, permissions, is_system, created_at, updated_at)
SELECT pg_temp.made_id('role', n), 'scale-role-' || n, '', r.permissions, false, %(now)s, %(now)s
FROM unnest(ARRAY[
  '["secret.approve"]', '["secret.approve", "secret.list"]', '["user_role.edit", "team.edit"]',
  '["secret.request", "secret.list"]', '["policy.author", "secret.list"]'
]::jsonb[]) WITH ORDINALITY AS r (permissions, n);

-- Half of the grants are spread over everybody, half over one person in twenty; a few have ended.
INSERT INTO user_roles (id, user_id, role_id, scope, granted_by, granted_at, expires_at)
SELECT pg_temp.made_id('grant', n),
       pg_temp.made_id('user', CASE WHEN n %% 2 = 0 THEN 1 + n %% %(users)s
                                    ELSE 1 + n %% greatest(1, %(users)s / 20) END),
       r.id, s.scope, 'system:bench', %(now)s - n * interval '10 minutes',
       CASE WHEN n %% 10 = 1 THEN %(now)s - interval '1 day' WHEN n %% 5 = 2 THEN %(now)s + interval '90 days' END
FROM generate_series(1, %(grants)s) AS n
CROSS JOIN LATERAL (
  SELECT 1 + floor(random() * %(teams)s) AS team, 1 + floor(random() * %(projects)s) AS project
  WHERE n > 0) AS at
CROSS JOIN LATERAL (
  SELECT CASE
    WHEN n %% 200 = 19 THEN '{}'
    WHEN n %% 20 < 6 THEN jsonb_build_object('team_id', pg_temp.made_id('team', CAST(at.team AS bigint)))
    WHEN n %% 20 < 12 THEN jsonb_build_object('project_id', pg_temp.made_id('project', CAST(at.project AS bigint)))
    WHEN n %% 20 < 15 THEN
      jsonb_build_object('environment_id', pg_temp.made_id('environment', CAST(3 * at.project + 1 + n %% 3 AS bigint)))
    WHEN n %% 20 = 15 THEN jsonb_build_object('secret_ref_prefix', 'team-' || at.team || '/')
    WHEN n %% 20 = 16 THEN
      jsonb_build_object('secret_ref_prefix', pg_temp.ref_of(CAST(at.project AS bigint), 1 + n %% 5))
    WHEN n %% 40 = 17 THEN jsonb_build_object('provider', 'kubernetes')
    WHEN n %% 40 = 37 THEN jsonb_build_object('cluster', 'lab')
    WHEN n %% 20 = 18 THEN jsonb_build_object('team_id', pg_temp.made_id('team', CAST(at.team AS bigint)), 'provider', 'vault')
    ELSE jsonb_build_object('project_id', pg_temp.made_id('project', CAST(at.project AS bigint)),
                            'secret_ref_prefix', 'team-') END) AS s (scope)
JOIN roles AS r ON r.name = (ARRAY['approver', 'developer', 'developer', 'developer', 'scale-role-1',
                                   'scale-role-2', 'scale-role-3', 'scale-role-4', 'scale-role-5',
                                   'policy_author', 'developer'])[1 + n / 20 %% 11];

INSERT INTO workflow_definitions (id, name, description, min_approvers, auto_approve, approver_role_id,
  wrap_ttl_created_seconds, wrap_ttl_approved_seconds, wrap_ttl_claimed_seconds, request_ttl_seconds,
  fill_ttl_seconds, require_justification, allow_self_approval, requires_security_approval,
  scoped_policy_authorable, notification_channels, is_default, enabled, is_system, created_at, updated_at)
SELECT pg_temp.made_id('workflow', n), 'scale-workflow-' || n, '', 1 + n %% 2, false,
       CASE WHEN n %% 10 = 0 THEN pg_temp.made_id('role', 1) END, 604800, 3600, 300, 1209600,
       86400, true, false, false, n %% 3 = 0, '[]', false, n %% 20 <> 19, false, %(now)s, %(now)s
FROM generate_series(1, 20) AS n;

-- Six rules in ten are the platform's: most for one project or one path, some for everybody.
INSERT INTO policy_rules (id, name, selector, workflow_id, priority, enabled, is_system, direct_reveal_allowed,
  requires_mfa, reveal_ttl_seconds, project_id, team_id, created_at, updated_at)
SELECT pg_temp.made_id('rule', n), 'scale-rule-' || n, CASE
    WHEN n %% 5 = 3 THEN jsonb_build_object('environment_kind', 'non_prod',
                                           'operation', (ARRAY['read', 'patch'])[1 + n / 5 %% 2])
    WHEN n %% 5 = 4 THEN jsonb_build_object('environment_kind', 'non_prod',
                                           'environment', (ARRAY['dev', 'staging'])[1 + n / 5 %% 2])
    WHEN n %% 30 IN (0, 5, 10, 15) THEN
      jsonb_build_object('project_id', pg_temp.made_id('project', 1 + n %% %(projects)s), 'environment_kind', 'prod')
    WHEN n %% 30 IN (1, 6, 11, 16, 21) THEN
      jsonb_build_object('secret_ref_prefix', pg_temp.ref_of(1 + n %% %(projects)s, 1), 'provider_type', 'vault')
    WHEN n %% 30 IN (2, 7, 12, 17, 22) THEN
      jsonb_build_object('secret_ref_prefix', 'team-' || (1 + n %% %(teams)s) || '/', 'environment_kind', 'prod')
    ELSE jsonb_build_object('environment', 'env-' || n %% 40, 'operation', 'read', 'provider_type', 'vault') END,
  pg_temp.made_id('workflow', 1 + n %% 20), 1 + n * 7919 %% 1000, n %% 25 <> 0, false, false, false, 60,
  CASE WHEN n %% 5 = 4 THEN pg_temp.made_id('project', 1 + n %% %(projects)s) END,
  CASE WHEN n %% 5 = 3 THEN pg_temp.made_id('team', 1 + n %% %(teams)s) END,
  %(now)s - n * interval '1 hour', %(now)s
FROM generate_series(1, %(rules)s) AS n;

-- Half a year of requests, the first of them the oldest; few projects have most of them.
INSERT INTO access_requests (id, requester_id, type, justification, status, workflow_id, matched_policy_rule_id,
  project_id, environment_id, secret_id, provider_connection_id, cluster_name, target_provider_type,
  target_provider_config, target_secret_ref, target_keys, target_scope, snap_min_approvers,
  snap_allow_self_approval, snap_approver_role_id, snap_requires_security_approval,
  snap_wrap_ttl_created_seconds, snap_wrap_ttl_approved_seconds, snap_wrap_ttl_claimed_seconds,
  snap_request_ttl_seconds, expires_at, decided_at, execute_before_at, finished_at, created_at, updated_at)
SELECT pg_temp.made_id('request', n), pg_temp.made_id('user', r.requester), CASE WHEN n %% 10 = 0 THEN 'patch' ELSE 'read' END,
       'Needed for the incident of that day.', s.status, pg_temp.made_id('workflow', 1 + n %% 20), NULL,
       CASE WHEN n %% 20 > 0 THEN pg_temp.made_id('project', r.project) END,
       CASE WHEN n %% 20 > 0 THEN pg_temp.made_id('environment', 3 * r.project + 1 + n %% 3) END,
       CASE WHEN n %% 20 > 0 THEN pg_temp.made_id('secret', 5 * r.project + r.secret) END,
       c.id, pg_temp.cluster_of(r.project), c.type, '{}', pg_temp.ref_of(r.project, r.secret), '["PASSWORD"]', '{}',
       1 + n %% 2, false, CASE WHEN n %% 10 = 3 THEN pg_temp.made_id('role', 1) END, false, 604800, 3600, 300,
       1209600, m.at + interval '14 days', CASE WHEN s.status <> 'pending' THEN m.at + interval '1 hour' END,
       CASE WHEN s.status = 'approved' THEN %(now)s + interval '1 day' END,
       CASE WHEN s.status NOT IN ('pending', 'approved') THEN m.at + interval '2 hours' END, m.at, m.at
FROM generate_series(1, %(requests)s) AS n
CROSS JOIN LATERAL (
  SELECT 1 + CAST(floor(%(projects)s * power(random(), 2)) AS bigint) AS project,
         1 + CAST(floor(5 * random()) AS bigint) AS secret,
         1 + CAST(floor(%(users)s * random()) AS bigint) AS requester
  WHERE n > 0) AS r
CROSS JOIN LATERAL (
  SELECT %(now)s - interval '1 minute' - (%(requests)s - n) * (interval '180 days' / %(requests)s)) AS m (at)
CROSS JOIN LATERAL (
  SELECT CASE WHEN n > 0.98 * %(requests)s AND n %% 2 = 0 THEN 'pending'
              WHEN n > 0.98 * %(requests)s AND n %% 8 = 1 THEN 'approved'
              WHEN n %% 7 = 0 THEN 'rejected' WHEN n %% 11 = 0 THEN 'expired' WHEN n %% 13 = 0 THEN 'cancelled'
              WHEN n %% 17 = 0 THEN 'failed' ELSE 'executed' END) AS s (status)
JOIN provider_connections AS c ON c.name = 'scale-' || pg_temp.provider_of(r.project, r.secret)
ORDER BY n;

INSERT INTO approvals (id, request_id, approver_id, decision, lane, created_at)
SELECT pg_temp.made_id('approval', row_number() OVER (ORDER BY r.created_at)), r.id,
       pg_temp.made_id('user', 1 + CAST(floor(%(users)s * random()) AS bigint)),
       CASE WHEN r.status = 'rejected' THEN 'reject' ELSE 'approve' END, 'source', r.created_at + interval '1 hour'
FROM access_requests AS r
WHERE r.status IN ('approved', 'rejected', 'executed', 'failed')
   OR (r.status = 'pending' AND r.snap_min_approvers = 2 AND random() < 0.2);

-- Wraps of what ended long ago have been swept away.
INSERT INTO secret_wraps (id, request_id, issued_via, key_name, encrypted_value, nonce, data_key_ciphertext,
                          kms_key_id, algorithm, content_hmac, byte_length, created_at, expires_at)
SELECT pg_temp.made_id('wrap', row_number() OVER (ORDER BY r.created_at)), r.id, 'request', 'PASSWORD',
       sha256('value'), '\x00', sha256('key'), 'bench', 'AES-256-GCM-AADv1', sha256('hmac'), 24,
       r.created_at, r.created_at + interval '8 days'
FROM access_requests AS r
WHERE r.status = 'executed' AND r.created_at > %(now)s - interval '10 days';
