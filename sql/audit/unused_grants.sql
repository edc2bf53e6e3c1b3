-- Grants in force whose holder has not used them for a number of days, oldest first.
-- unused: the grant is older than that, and in that time its holder has done none of the things that
-- the trail records and that one of the role's permissions is needed for. leaves no trace: no
-- permission of the role is needed for anything that is recorded, so nothing can be told. gives
-- nothing: the role has no permissions. Refused attempts are no use; disabled accounts use nothing.
-- Limits: whatever was done counts for each grant of the holder that carries the permission, at
-- whatever scope: a grant listed as unused has not been used to change anything, yet one that is not
-- listed may still be idle. Reading leaves no trace: untraced names the permissions of the role whose
-- use cannot be told, above all secret.list and audit.read. Ask the holder before taking a grant back.
-- last_act_at is when the holder last did anything that was recorded, signing in included.
-- Variables: days (whole number of days).
-- Run:  psql -v days=90 -f sql/audit/unused_grants.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\if :{?days}
\else
DO $$ BEGIN RAISE EXCEPTION 'days is missing (whole number of days)'
  USING HINT = $run$psql -v days=90 -f sql/audit/unused_grants.sql$run$; END $$;
\endif
-- Compiling this takes longer than answering it.
SELECT set_config('jit', 'off', false) AS jit \gset
WITH needs (permission, action) AS (
  VALUES ('role.edit', 'role.create'), ('role.edit', 'role.update'), ('role.edit', 'role.delete'),
         ('user_role.edit', 'grant.create'), ('user_role.edit', 'grant.update'),
         ('user_role.edit', 'grant.revoke'), ('user_role.edit', 'user.create'),
         ('user_role.edit', 'user.update'), ('user_role.edit', 'user.disable'),
         ('user_role.edit', 'user.enable'), ('user_role.edit', 'user.unlock'),
         ('user_role.edit', 'user.password.reset'), ('user_role.edit', 'session.revoke'),
         ('user_role.edit', 'session.revoke_all'),
         ('team.edit', 'team.create'), ('team.edit', 'team.update'), ('team.edit', 'team.archive'),
         ('team.edit', 'team.restore'), ('team.edit', 'team.delete'),
         ('team.edit', 'team.member.add'), ('team.edit', 'team.member.remove'),
         ('project.edit', 'project.create'), ('project.edit', 'project.update'),
         ('project.edit', 'project.move'), ('project.edit', 'project.archive'),
         ('project.edit', 'project.restore'),
         ('environment.edit', 'environment.create'), ('environment.edit', 'environment.update'),
         ('environment.edit', 'environment.delete'),
         ('secret.bind', 'secret_binding.create'), ('secret.bind', 'secret_binding.update'),
         ('secret.bind', 'secret_binding.delete'),
         ('workflow.edit', 'workflow.create'), ('workflow.edit', 'workflow.update'),
         ('workflow.edit', 'workflow.delete'),
         ('policy.edit', 'policy.create'), ('policy.edit', 'policy.update'),
         ('policy.edit', 'policy.delete'), ('policy.edit', 'platform_setting.update'),
         ('policy.edit', 'audit.read.policy_history'),
         ('policy.author', 'policy.create'), ('policy.author', 'policy.update'),
         ('policy.author', 'policy.delete'), ('policy.author', 'audit.read.policy_history'),
         ('agent.mint', 'agent.mint'), ('agent.mint', 'agent.enrollment_token.created'),
         ('agent.mint', 'agent.enrollment_token.revoked'), ('agent.revoke', 'agent.revoked'),
         ('secret.request', 'request.submit'), ('secret.approve', 'request.approve'),
         ('secret.approve', 'request.reject'), ('integration.edit', 'provider_connection.create')
), used AS MATERIALIZED (
  SELECT DISTINCT a.actor, n.permission
  FROM audit_events AS a
  JOIN needs AS n ON n.action = a.action
  WHERE a.status = 'success' AND a.actor LIKE 'user:%'
    AND a.occurred_at >= now() - make_interval(days => CAST(:'days' AS integer))
    -- Rules may be changed by either of two permissions, and the row says by which.
    AND coalesce(a.metadata ->> 'actor_permission_used', n.permission) = n.permission
    -- One's own sessions end without any permission.
    AND (a.action <> 'session.revoke' OR 'user:' || (a.metadata ->> 'user_id') <> a.actor)
    AND (a.action <> 'session.revoke_all' OR a.resource <> a.actor)
), judged AS (
  SELECT g.id, g.user_id, g.scope, g.granted_by, g.granted_at, g.expires_at, g.reason,
         r.name AS role,
         string_agg(v.key, ' ' ORDER BY v.key) FILTER (WHERE n.permission IS NOT NULL) AS traced,
         string_agg(v.key, ' ' ORDER BY v.key) FILTER (WHERE n.permission IS NULL) AS untraced
  FROM user_roles AS g
  JOIN roles AS r ON r.id = g.role_id
  LEFT JOIN LATERAL jsonb_array_elements_text(r.permissions) AS v (key) ON true
  LEFT JOIN (SELECT DISTINCT permission FROM needs) AS n ON n.permission = v.key
  LEFT JOIN used AS o ON o.permission = v.key AND o.actor = 'user:' || g.user_id
  WHERE (g.expires_at IS NULL OR g.expires_at > now())
    AND g.granted_at <= now() - make_interval(days => CAST(:'days' AS integer))
  GROUP BY g.id, r.id
  HAVING count(o.actor) = 0
)
SELECT CASE WHEN j.traced IS NOT NULL THEN 'unused'
            WHEN j.untraced IS NOT NULL THEN 'leaves no trace'
            ELSE 'gives nothing' END AS finding,
       u.email, u.disabled, j.role,
       CASE WHEN j.scope = '{}' THEN 'everything' ELSE concat_ws(', ',
         'team ' || coalesce(t.name, j.scope ->> 'team_id'),
         'project ' || coalesce(p.name, j.scope ->> 'project_id'),
         'environment ' || coalesce(e.name || ' of ' || ep.name, j.scope ->> 'environment_id'),
         'paths from ' || (j.scope ->> 'secret_ref_prefix'),
         'provider ' || (j.scope ->> 'provider'), 'cluster ' || (j.scope ->> 'cluster')) END AS scope,
       j.traced, j.untraced, coalesce(b.email, j.granted_by) AS granted_by, j.granted_at,
       j.expires_at, j.reason, l.occurred_at AS last_act_at, j.id AS grant_id
FROM judged AS j
JOIN local_users AS u ON u.id = j.user_id
LEFT JOIN teams AS t ON CAST(t.id AS text) = j.scope ->> 'team_id'
LEFT JOIN projects AS p ON CAST(p.id AS text) = j.scope ->> 'project_id'
LEFT JOIN environments AS e ON CAST(e.id AS text) = j.scope ->> 'environment_id'
LEFT JOIN projects AS ep ON ep.id = e.project_id
LEFT JOIN local_users AS b ON j.granted_by = 'user:' || b.id
LEFT JOIN LATERAL (
  SELECT a.occurred_at
  FROM audit_events AS a
  WHERE a.actor = 'user:' || j.user_id
  ORDER BY a.occurred_at DESC
  LIMIT 1) AS l ON true
ORDER BY j.granted_at, j.id;
