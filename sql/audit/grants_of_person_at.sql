-- Which roles a person held at a moment, whatever became of the grants since: told from the grants
-- that are there and, for those taken back or changed later, from the append-only trail.
-- At the moment itself everything of that moment has happened: a grant given then is held, one taken
-- back or ending then is not, and end, reason, role name and permissions are those it had then.
-- ended_at, ended_how, ended_by and ended_reason tell what became of the grant until today. Teams,
-- projects and environments have their names of today. without_effect tells why a grant gave nothing.
-- A person is named by id, or by an address they have today or had at the moment: that may be two
-- people. An error: nobody is called so. A row without a role: they held none.
-- Limits: what was changed in the tables by hand left no trail. A grant taken back by a release that
-- did not write granted_at and whose beginning is not in the trail counts as held before its end.
-- Variables: person (id or address), at (timestamp with time zone).
-- Run:  psql -v person=ann@example.com -v at='2026-01-01T00:00:00Z' -f sql/audit/grants_of_person_at.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\if :{?person}
\else
DO $$ BEGIN RAISE EXCEPTION 'person is missing (id or address)'
  USING HINT = $run$psql -v person=ann@example.com -v at='2026-01-01T00:00:00Z' -f sql/audit/grants_of_person_at.sql$run$; END $$;
\endif
\if :{?at}
\else
DO $$ BEGIN RAISE EXCEPTION 'at is missing (timestamp with time zone)'
  USING HINT = $run$psql -v person=ann@example.com -v at='2026-01-01T00:00:00Z' -f sql/audit/grants_of_person_at.sql$run$; END $$;
\endif
-- Compiling this takes longer than answering it.
SELECT set_config('jit', 'off', false) AS jit \gset
WITH moment AS (
  SELECT CAST(:'at' AS timestamptz) AS at, lower(:'person') AS person
), renamed AS (
  -- Of the changes of addresses since then the first tells what the address was.
  SELECT DISTINCT ON (a.resource) a.resource, a.metadata -> 'before' ->> 'email' AS email
  FROM moment AS m
  JOIN audit_events AS a ON a.action = 'user.update' AND a.status = 'success'
   AND a.metadata -> 'before' ? 'email' AND a.occurred_at > m.at
  ORDER BY a.resource, a.occurred_at, a.id
), people AS (
  SELECT u.id, u.email, u.disabled
  FROM moment AS m
  JOIN local_users AS u ON CAST(u.id AS text) = m.person OR u.email = m.person
    OR EXISTS (SELECT 1 FROM renamed AS n WHERE n.email = m.person AND n.resource = 'user:' || u.id)
), grants AS (
  SELECT g.id, g.user_id, g.role_id, g.scope, g.granted_by, g.granted_at, g.expires_at, g.reason,
         CAST(NULL AS text) AS role_name, CAST(NULL AS timestamptz) AS revoked_at,
         CAST(NULL AS text) AS revoked_by, CAST(NULL AS text) AS revoke_reason
  FROM user_roles AS g
  JOIN people AS p ON p.id = g.user_id
  UNION ALL
  SELECT CAST(split_part(a.resource, ':', 2) AS uuid), p.id, CAST(a.metadata ->> 'role_id' AS uuid),
         a.metadata -> 'scope', a.metadata ->> 'granted_by',
         coalesce(CAST(a.metadata ->> 'granted_at' AS timestamptz),
                  (SELECT min(c.occurred_at) FROM audit_events AS c
                   WHERE c.resource = a.resource AND c.action = 'grant.create'
                     AND c.status = 'success')),
         CAST(a.metadata ->> 'expires_at' AS timestamptz), a.metadata ->> 'reason',
         a.metadata ->> 'role', a.occurred_at, a.actor, a.metadata ->> 'revoke_reason'
  FROM moment AS m
  JOIN audit_events AS a ON a.action = 'grant.revoke' AND a.status = 'success'
   AND a.occurred_at > m.at
  JOIN people AS p ON a.metadata ->> 'user_id' = CAST(p.id AS text)
), changed AS (
  -- What a later change found is what was so at the moment.
  SELECT g.*, CASE WHEN c.was IS NULL THEN g.expires_at
                   ELSE CAST(c.was ->> 'expires_at' AS timestamptz) END AS ended_then,
         CASE WHEN c.was IS NULL THEN g.reason ELSE c.was ->> 'reason' END AS reason_then
  FROM moment AS m
  JOIN grants AS g ON g.granted_at <= m.at OR g.granted_at IS NULL
  LEFT JOIN LATERAL (
    SELECT a.metadata -> 'before' AS was
    FROM audit_events AS a
    WHERE a.resource = 'grant:' || g.id AND a.action = 'grant.update' AND a.status = 'success'
      AND a.occurred_at > m.at
    ORDER BY a.occurred_at, a.id
    LIMIT 1) AS c ON true
), held AS (
  SELECT c.* FROM changed AS c JOIN moment AS m ON c.ended_then IS NULL OR c.ended_then > m.at
)
SELECT u.id AS user_id, u.email, coalesce(rn.name, r.name, h.role_name) AS role,
       (SELECT string_agg(k.value, ' ') FROM jsonb_array_elements_text(
          coalesce(rp.permissions, r.permissions)) AS k (value)) AS permissions,
       CASE WHEN h.scope = '{}' THEN 'everything' ELSE concat_ws(', ',
         'team ' || coalesce(t.name, (SELECT a.metadata ->> 'name' FROM audit_events AS a
           WHERE a.resource = 'team:' || (h.scope ->> 'team_id') AND a.action = 'team.delete'
             AND a.status = 'success' LIMIT 1), h.scope ->> 'team_id'),
         'project ' || coalesce(p.name, h.scope ->> 'project_id'),
         'environment ' || coalesce(e.name || ' of ' || ep.name, h.scope ->> 'environment_id'),
         'paths from ' || (h.scope ->> 'secret_ref_prefix'),
         'provider ' || (h.scope ->> 'provider'), 'cluster ' || (h.scope ->> 'cluster')) END AS scope,
       coalesce(gu.email, h.granted_by) AS granted_by, h.granted_at, h.reason_then AS reason,
       h.ended_then AS expires_at,
       CASE WHEN h.expires_at <= coalesce(h.revoked_at, now()) THEN h.expires_at
            ELSE h.revoked_at END AS ended_at,
       CASE WHEN h.expires_at <= coalesce(h.revoked_at, now()) THEN 'ran out'
            WHEN h.revoked_at IS NOT NULL THEN 'taken back' END AS ended_how,
       CASE WHEN h.expires_at <= h.revoked_at THEN NULL
            ELSE coalesce(ru.email, h.revoked_by) END AS ended_by,
       CASE WHEN h.expires_at <= h.revoked_at THEN NULL ELSE h.revoke_reason END AS ended_reason,
       CASE WHEN h.id IS NULL THEN NULL
            WHEN coalesce(d.disabled, later.was_disabled, u.disabled) THEN 'account disabled'
            WHEN e.deleted_at <= m.at THEN 'environment deleted' END AS without_effect,
       h.id AS grant_id
FROM moment AS m
CROSS JOIN people AS u
LEFT JOIN held AS h ON h.user_id = u.id
LEFT JOIN roles AS r ON r.id = h.role_id
LEFT JOIN teams AS t ON CAST(t.id AS text) = h.scope ->> 'team_id'
LEFT JOIN projects AS p ON CAST(p.id AS text) = h.scope ->> 'project_id'
LEFT JOIN environments AS e ON CAST(e.id AS text) = h.scope ->> 'environment_id'
LEFT JOIN projects AS ep ON ep.id = e.project_id
LEFT JOIN local_users AS gu ON h.granted_by = 'user:' || gu.id
LEFT JOIN local_users AS ru ON h.revoked_by = 'user:' || ru.id
LEFT JOIN LATERAL (
  SELECT coalesce(a.metadata -> 'before' ->> 'name', a.metadata ->> 'name') AS name
  FROM audit_events AS a
  WHERE a.resource = 'role:' || h.role_id AND a.status = 'success' AND a.occurred_at > m.at
    AND (a.action = 'role.delete' OR (a.action = 'role.update' AND a.metadata -> 'before' ? 'name'))
  ORDER BY a.occurred_at, a.id
  LIMIT 1) AS rn ON true
LEFT JOIN LATERAL (
  SELECT coalesce(a.metadata -> 'before' -> 'permissions', a.metadata -> 'permissions') AS permissions
  FROM audit_events AS a
  WHERE a.resource = 'role:' || h.role_id AND a.status = 'success' AND a.occurred_at > m.at
    AND (a.action = 'role.delete'
         OR (a.action = 'role.update' AND a.metadata -> 'before' ? 'permissions'))
  ORDER BY a.occurred_at, a.id
  LIMIT 1) AS rp ON true
LEFT JOIN LATERAL (
  SELECT a.action = 'user.disable' AS disabled
  FROM audit_events AS a
  WHERE a.resource = 'user:' || u.id AND a.status = 'success' AND a.occurred_at <= m.at
    AND a.action IN ('user.disable', 'user.enable')
  ORDER BY a.occurred_at DESC, a.id DESC
  LIMIT 1) AS d ON true
LEFT JOIN LATERAL (
  SELECT a.action = 'user.enable' AS was_disabled
  FROM audit_events AS a
  WHERE a.resource = 'user:' || u.id AND a.status = 'success' AND a.occurred_at > m.at
    AND a.action IN ('user.disable', 'user.enable')
  ORDER BY a.occurred_at, a.id
  LIMIT 1) AS later ON true
ORDER BY u.email, h.granted_at, h.id;
-- A slip of the pen must not read as if nothing had happened.
SELECT :ROW_COUNT = 0 AS unknown, set_config('audit.asked', :'person', false) AS asked \gset
\if :unknown
DO $$ BEGIN RAISE EXCEPTION 'no such person: %', current_setting('audit.asked')
  USING HINT = coalesce(
    (SELECT 'At another time this was the address of ' || string_agg(DISTINCT u.email, ', ') || '.'
     FROM audit_events AS a
     JOIN local_users AS u ON a.resource = 'user:' || u.id
     WHERE a.action = 'user.update' AND a.status = 'success'
       AND a.metadata -> 'before' ->> 'email' = lower(current_setting('audit.asked'))),
    'Nobody has or ever had this id or address.'); END $$;
\endif
