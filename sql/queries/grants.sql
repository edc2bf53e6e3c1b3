-- name: grant_list_for_user :many
-- Returns each grant of the user that is in force, with its role; a grant scoped to a team has one row for every team
-- of that team's subtree.
WITH RECURSIVE mine AS (
  SELECT ur.id, ur.role_id, ur.scope, r.name AS role_name, r.permissions
  FROM user_roles AS ur
  JOIN roles AS r ON r.id = ur.role_id
  WHERE ur.user_id = :user_id AND (ur.expires_at IS NULL OR ur.expires_at > :now)
), subtree (grant_id, team_id) AS (
  SELECT m.id, t.id
  FROM mine AS m
  JOIN teams AS t ON CAST(t.id AS text) = m.scope ->> 'team_id'
  UNION
  SELECT s.grant_id, c.id
  FROM subtree AS s
  JOIN teams AS c ON c.parent_team_id = s.team_id
)
SELECT m.id, m.role_id, m.role_name, m.permissions, m.scope, s.team_id
FROM mine AS m
LEFT JOIN subtree AS s ON s.grant_id = m.id
ORDER BY m.id
LIMIT 20000;

-- name: grant_insert :count
-- Gives a user a role at a scope.
INSERT INTO user_roles (id, user_id, role_id, scope, granted_by, granted_at, expires_at, reason)
VALUES (:id, :user_id, :role_id, :scope, :granted_by, :now, :expires_at, :reason);

-- name: grant_any_of_role :scalar
-- Returns 1 when anybody holds this role at any scope.
SELECT 1 FROM user_roles WHERE role_id = :role_id LIMIT 1;
