-- Who may approve what, now: every grant that carries secret.approve, with its scope in words.
-- Disabled accounts are marked; they cannot sign in.
-- Variables: none.
-- Run:  psql -f sql/audit/who_may_approve.sql
\set ON_ERROR_STOP on
SELECT u.email, u.disabled, r.name AS role,
       CASE WHEN ur.scope = '{}' THEN 'everything' ELSE ur.scope::text END AS scope,
       t.name AS team, p.name AS project, ur.granted_by, ur.granted_at
FROM user_roles AS ur
JOIN roles AS r ON r.id = ur.role_id
JOIN local_users AS u ON u.id = ur.user_id
LEFT JOIN teams AS t ON t.id::text = ur.scope ->> 'team_id'
LEFT JOIN projects AS p ON p.id::text = ur.scope ->> 'project_id'
WHERE r.permissions ? 'secret.approve'
ORDER BY u.email, r.name, ur.id;
