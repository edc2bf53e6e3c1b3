-- name: team_list :many
-- Returns a page of the teams the caller may see, newest first: own ones and those in scope.
-- The list of ids arrives as JSON, which the two databases unpack differently.
SELECT t.id, t.name, t.parent_team_id, t.status, t.description, t.created_at, t.updated_at
FROM teams AS t
WHERE (:id IS NULL OR t.id = :id)
  AND (:status IS NULL OR t.status = :status)
  AND (:parent_team_id IS NULL OR t.parent_team_id = :parent_team_id)
  AND (:before_at IS NULL OR (t.created_at, t.id) < (:before_at, :before_id))
  AND (:everything
       OR EXISTS (SELECT 1 FROM team_members AS m WHERE m.team_id = t.id AND m.user_id = :caller_id)
       OR t.id IN (SELECT g.value FROM json_each(:covered) AS g))
ORDER BY t.created_at DESC, t.id DESC
LIMIT :limit;
