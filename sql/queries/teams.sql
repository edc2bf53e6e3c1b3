-- name: team_find :one
-- Returns the team with this id, or no row.
SELECT id, name, parent_team_id, status, description, created_at, updated_at
FROM teams
WHERE id = :id;

-- name: team_lock :one
-- Holds the team until the transaction ends and returns it, or no row.
SELECT id, name, parent_team_id, status, description, created_at, updated_at
FROM teams
WHERE id = :id;

-- name: team_lock_tree :scalar
-- Lets nobody else change where teams stand until the transaction ends.
SELECT 1;

-- name: team_stands_within :scalar
-- Returns 1 when the team is the other one or stands anywhere below it.
WITH RECURSIVE lineage (team_id) AS (
  SELECT t.id FROM teams AS t WHERE t.id = :id
  UNION
  SELECT t.parent_team_id
  FROM lineage AS l
  JOIN teams AS t ON t.id = l.team_id
  WHERE t.parent_team_id IS NOT NULL
)
SELECT 1 FROM lineage WHERE team_id = :above_id;

-- name: team_depth :scalar
-- Returns how many teams there are from the root down to this one, itself included; counts to 1000.
WITH RECURSIVE lineage (team_id, level) AS (
  SELECT t.parent_team_id, 1 FROM teams AS t WHERE t.id = :id
  UNION ALL
  SELECT t.parent_team_id, l.level + 1
  FROM lineage AS l
  JOIN teams AS t ON t.id = l.team_id
  WHERE l.level < 1000
)
SELECT max(level) FROM lineage;

-- name: team_height :scalar
-- Returns how many levels there are from this team down to its lowest, its own included; counts to
-- 1000.
WITH RECURSIVE subtree (team_id, level) AS (
  SELECT t.id, 1 FROM teams AS t WHERE t.id = :id
  UNION ALL
  SELECT c.id, s.level + 1
  FROM subtree AS s
  JOIN teams AS c ON c.parent_team_id = s.team_id
  WHERE s.level < 1000
)
SELECT max(level) FROM subtree;

-- name: team_insert :count
-- Creates a team.
INSERT INTO teams (id, name, parent_team_id, status, description, created_at, updated_at)
VALUES (:id, :name, :parent_team_id, :status, :description, :now, :now);

-- name: team_update :count
-- Changes name, description and parent of a team that still stands where it was seen.
UPDATE teams
SET name = :name, description = :description, parent_team_id = :parent_team_id, updated_at = :now
WHERE id = :id AND coalesce(CAST(parent_team_id AS text), '') = :expected_parent;

-- name: team_set_status :count
-- Archives or restores a team; 0 when it is in that state already.
UPDATE teams SET status = :status, updated_at = :now WHERE id = :id AND status <> :status;

-- name: team_delete :count
-- Deletes a team that has no teams below it; its memberships go with it.
DELETE FROM teams WHERE id = :id;

-- name: team_usage :one
-- Returns how many teams, projects, rules and grants in force name this team directly.
SELECT (SELECT count(*) FROM teams AS c WHERE c.parent_team_id = :id) AS teams_count,
       (SELECT count(*) FROM projects AS p WHERE p.team_id = :id) AS projects_count,
       (SELECT count(*) FROM policy_rules AS r WHERE r.team_id = :id) AS rules_count,
       (SELECT count(*) FROM user_roles AS g
        WHERE g.scope ->> 'team_id' = CAST(:id AS text)
          AND (g.expires_at IS NULL OR g.expires_at > :now)) AS grants_count;

-- name: team_reach :one
-- Returns how many rules stand on this team and how many projects in its subtree.
WITH RECURSIVE subtree (team_id) AS (
  SELECT t.id FROM teams AS t WHERE t.id = :id
  UNION
  SELECT c.id
  FROM subtree AS s
  JOIN teams AS c ON c.parent_team_id = s.team_id
)
SELECT (SELECT count(*) FROM policy_rules AS r WHERE r.team_id = :id) AS team_policy_rule_count,
       (SELECT count(*) FROM projects AS p
        WHERE p.team_id IN (SELECT team_id FROM subtree)) AS affected_project_count;

-- name: team_member_insert :count
-- Makes a person a member of a team; 0 when they are one already.
INSERT INTO team_members (team_id, user_id, created_at, created_by)
VALUES (:team_id, :user_id, :now, :created_by)
ON CONFLICT (team_id, user_id) DO NOTHING;

-- name: team_member_delete :count
-- Ends a membership; 0 when there is none.
DELETE FROM team_members WHERE team_id = :team_id AND user_id = :user_id;

-- name: team_member_list :many
-- Returns a page of a team's direct members, newest first.
SELECT m.team_id, m.user_id, m.created_at, m.created_by, u.email, u.display_name
FROM team_members AS m
JOIN local_users AS u ON u.id = m.user_id
WHERE m.team_id = :team_id
  AND (:before_at IS NULL OR (m.created_at, m.user_id) < (:before_at, :before_id))
ORDER BY m.created_at DESC, m.user_id DESC
LIMIT :limit;
