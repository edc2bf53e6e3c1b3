-- name: policy_list_candidates :many
-- Returns the enabled rules that match these facts, first winner first, and how many there are: by priority, then
-- project before team before platform, the nearest team, age. Those whose workflow is disabled never win and are
-- left out if only what may win is asked for.
-- Facts are a JSON object of what is known; a selector that says more, or otherwise, is not within it. Few rows are
-- looked for by key, in subqueries that OFFSET 0 keeps apart: the planner would read whole tables instead.
WITH RECURSIVE lineage (team_id, distance) AS (
  SELECT p.team_id, 0 FROM projects AS p WHERE p.id = :project_id AND p.team_id IS NOT NULL
  UNION
  SELECT t.parent_team_id, l.distance + 1
  FROM lineage AS l
  CROSS JOIN LATERAL (SELECT t.parent_team_id FROM teams AS t WHERE t.id = l.team_id OFFSET 0) AS t
  WHERE t.parent_team_id IS NOT NULL AND l.distance < 100000
), candidates AS (
  SELECT r.id, r.name, r.selector, r.workflow_id, r.priority, r.direct_reveal_allowed,
         r.requires_mfa, r.reveal_ttl_seconds, r.project_id, r.team_id, r.created_at, 0 AS depth
  FROM policy_rules AS r
  WHERE r.enabled AND r.project_id = :project_id
  UNION ALL
  SELECT r.id, r.name, r.selector, r.workflow_id, r.priority, r.direct_reveal_allowed,
         r.requires_mfa, r.reveal_ttl_seconds, r.project_id, r.team_id, r.created_at, 
         1 + l.distance AS depth
  FROM lineage AS l
  CROSS JOIN LATERAL (SELECT * FROM policy_rules AS t WHERE t.team_id = l.team_id OFFSET 0) AS r
  WHERE r.enabled
  UNION ALL
  SELECT r.id, r.name, r.selector, r.workflow_id, r.priority, r.direct_reveal_allowed,
         r.requires_mfa, r.reveal_ttl_seconds, r.project_id, r.team_id, r.created_at, 1000 AS depth
  FROM policy_rules AS r
  WHERE r.enabled AND r.project_id IS NULL AND r.team_id IS NULL
    -- What the index keeps of a selector; whether it matches is decided below.
    AND left(coalesce(r.selector ->> 'project_id', ''), 36) IN ('', CAST(:project_id AS text))
    AND left(coalesce(r.selector ->> 'secret_ref_prefix', ''), 60)
        = ANY (ARRAY(SELECT left(:secret_ref, n) FROM generate_series(0, 60) AS n))
)
SELECT c.id, c.name, c.selector, c.workflow_id, c.priority, c.direct_reveal_allowed, c.requires_mfa,
       c.reveal_ttl_seconds, c.project_id, c.team_id, c.created_at, c.depth,
       w.name AS workflow_name, w.enabled, count(*) OVER () AS total,
       (SELECT o.team_id FROM projects AS o WHERE o.id = c.project_id) AS project_team_id
FROM candidates AS c
JOIN workflow_definitions AS w ON w.id = c.workflow_id
WHERE (w.enabled OR NOT :winning)
  AND (:without_id IS NULL OR c.id <> :without_id)
  AND (c.selector - 'secret_ref_prefix') <@ CAST(:facts AS jsonb)
  AND CASE jsonb_typeof(c.selector -> 'secret_ref_prefix')
        WHEN 'string' THEN c.selector ->> 'secret_ref_prefix' <> ''
                           AND starts_with(:secret_ref, c.selector ->> 'secret_ref_prefix')
        ELSE c.selector -> 'secret_ref_prefix' IS NULL END
ORDER BY c.priority DESC, c.depth, c.created_at, c.id
LIMIT :limit;

-- name: policy_list_approvers :many
-- Returns people who may decide on a request with these facts, by address, and how many there are: those with
-- a grant of the permission in force over it, by the role that is asked for, if one is.
-- Scopes are JSON, which the two databases look into differently. What a scope must hold is said twice: the places
-- it is for in the words of the indexes, and all of it.
WITH RECURSIVE lineage (team_id, distance) AS (
  SELECT p.team_id, 0 FROM projects AS p WHERE p.id = :project_id AND p.team_id IS NOT NULL
  UNION
  SELECT t.parent_team_id, l.distance + 1
  FROM lineage AS l
  CROSS JOIN LATERAL (SELECT t.parent_team_id FROM teams AS t WHERE t.id = l.team_id OFFSET 0) AS t
  WHERE t.parent_team_id IS NOT NULL AND l.distance < 100000
)
SELECT u.id, u.email, u.display_name, count(*) OVER () AS total
FROM roles AS r
JOIN user_roles AS ur ON ur.role_id = r.id
JOIN local_users AS u ON u.id = ur.user_id AND NOT u.disabled
WHERE r.permissions @> to_jsonb(CAST(:permission AS text))
  AND (:role_id IS NULL OR r.id = :role_id)
  AND (:except_id IS NULL OR u.id <> :except_id)
  AND (ur.expires_at IS NULL OR ur.expires_at > :now)
  AND (ur.scope ->> 'team_id' = ANY (ARRAY(SELECT CAST(l.team_id AS text) FROM lineage AS l))
       OR ur.scope ->> 'project_id' = CAST(:project_id AS text)
       OR ur.scope ->> 'environment_id' = CAST(:facts AS jsonb) ->> 'environment_id'
       OR (ur.scope ->> 'team_id' IS NULL AND ur.scope ->> 'project_id' IS NULL
           AND ur.scope ->> 'environment_id' IS NULL))
  AND ur.scope - CAST('{team_id,secret_ref_prefix}' AS text[]) <@ CAST(:facts AS jsonb)
  AND (ur.scope -> 'team_id' IS NULL
       OR ur.scope ->> 'team_id' IN (SELECT CAST(l.team_id AS text) FROM lineage AS l))
  AND (ur.scope -> 'secret_ref_prefix' IS NULL
       OR (ur.scope ->> 'secret_ref_prefix' <> ''
           AND starts_with(:secret_ref, ur.scope ->> 'secret_ref_prefix')))
GROUP BY u.id, u.email, u.display_name
ORDER BY u.email, u.id
LIMIT :limit;
