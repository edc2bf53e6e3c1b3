-- name: policy_list_candidates :many
-- Returns the enabled rules that match these facts, first winner first, and how many there are: by priority, then
-- project before team before platform, the nearest team, age. Those whose workflow is disabled never win and are
-- left out if only what may win is asked for.
-- Facts are a JSON object of what is known; a selector that says more, or otherwise, does not match.
WITH RECURSIVE lineage (team_id, distance) AS (
  SELECT p.team_id, 0 FROM projects AS p WHERE p.id = :project_id AND p.team_id IS NOT NULL
  UNION
  SELECT t.parent_team_id, l.distance + 1
  FROM lineage AS l
  JOIN teams AS t ON t.id = l.team_id
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
  JOIN policy_rules AS r ON r.team_id = l.team_id
  WHERE r.enabled
  UNION ALL
  SELECT r.id, r.name, r.selector, r.workflow_id, r.priority, r.direct_reveal_allowed,
         r.requires_mfa, r.reveal_ttl_seconds, r.project_id, r.team_id, r.created_at, 1000 AS depth
  FROM policy_rules AS r
  WHERE r.enabled AND r.project_id IS NULL AND r.team_id IS NULL
    -- What the index keeps of a selector; whether it matches is decided below.
    AND substr(coalesce(r.selector ->> 'project_id', ''), 1, 36) IN ('', :project_id)
    AND substr(coalesce(r.selector ->> 'secret_ref_prefix', ''), 1, 60)
        = substr(:secret_ref, 1, min(60, length(coalesce(r.selector ->> 'secret_ref_prefix', ''))))
)
SELECT c.id, c.name, c.selector, c.workflow_id, c.priority, c.direct_reveal_allowed, c.requires_mfa,
       c.reveal_ttl_seconds, c.project_id, c.team_id, c.created_at, c.depth,
       w.name AS workflow_name, w.enabled, count(*) OVER () AS total,
       (SELECT o.team_id FROM projects AS o WHERE o.id = c.project_id) AS project_team_id
FROM candidates AS c
JOIN workflow_definitions AS w ON w.id = c.workflow_id
WHERE (w.enabled OR NOT :winning)
  AND (:without_id IS NULL OR c.id <> :without_id)
  AND NOT EXISTS (
    SELECT 1 FROM json_each(c.selector) AS s
    WHERE s.type <> 'text' OR s.value = ''
       OR NOT CASE s.key
            WHEN 'secret_ref_prefix' THEN substr(:secret_ref, 1, length(s.value)) = s.value
            ELSE EXISTS (SELECT 1 FROM json_each(:facts) AS f
                         WHERE f.key = s.key AND f.value = s.value) END)
ORDER BY c.priority DESC, c.depth, c.created_at, c.id
LIMIT :limit;

-- name: policy_list_approvers :many
-- Returns people who may decide on a request with these facts, by address, and how many there are: those with
-- a grant of the permission in force over it, by the role that is asked for, if one is.
-- Scopes are JSON, which the two databases look into differently.
WITH RECURSIVE lineage (team_id, distance) AS (
  SELECT p.team_id, 0 FROM projects AS p WHERE p.id = :project_id AND p.team_id IS NOT NULL
  UNION
  SELECT t.parent_team_id, l.distance + 1
  FROM lineage AS l
  JOIN teams AS t ON t.id = l.team_id
  WHERE t.parent_team_id IS NOT NULL AND l.distance < 100000
)
SELECT u.id, u.email, u.display_name, count(*) OVER () AS total
FROM roles AS r
JOIN user_roles AS ur ON ur.role_id = r.id
JOIN local_users AS u ON u.id = ur.user_id AND NOT u.disabled
WHERE EXISTS (SELECT 1 FROM json_each(r.permissions) AS p WHERE p.value = :permission)
  AND (:role_id IS NULL OR r.id = :role_id)
  AND (:except_id IS NULL OR u.id <> :except_id)
  AND (ur.expires_at IS NULL OR ur.expires_at > :now)
  AND NOT EXISTS (
    SELECT 1 FROM json_each(ur.scope) AS s
    WHERE s.type <> 'text' OR s.value = ''
       OR NOT coalesce(CASE s.key
            WHEN 'team_id' THEN s.value IN (SELECT l.team_id FROM lineage AS l)
            WHEN 'secret_ref_prefix' THEN substr(:secret_ref, 1, length(s.value)) = s.value
            ELSE EXISTS (SELECT 1 FROM json_each(:facts) AS f
                         WHERE f.key = s.key AND f.value = s.value) END, FALSE))
GROUP BY u.id, u.email, u.display_name
ORDER BY u.email, u.id
LIMIT :limit;
