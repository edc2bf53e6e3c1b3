-- name: policy_list_lineage :many
-- Returns the team of a project and those above it, the nearest first.
WITH RECURSIVE lineage (team_id, distance) AS (
  SELECT p.team_id, 0 FROM projects AS p WHERE p.id = :project_id AND p.team_id IS NOT NULL
  UNION
  SELECT t.parent_team_id, l.distance + 1
  FROM lineage AS l
  JOIN teams AS t ON t.id = l.team_id
  WHERE t.parent_team_id IS NOT NULL AND l.distance < 100000
)
SELECT l.team_id, l.distance FROM lineage AS l ORDER BY l.distance LIMIT 101;
