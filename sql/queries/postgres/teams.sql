-- name: team_lock :one
-- Holds the team until the transaction ends and returns it, or no row.
-- The row lock keeps others from hanging something on a team that is being deleted; SQLite has one
-- writer and needs none.
SELECT id, name, parent_team_id, status, description, created_at, updated_at
FROM teams
WHERE id = :id
FOR UPDATE;

-- name: team_lock_tree :scalar
-- Lets nobody else change where teams stand until the transaction ends.
-- Two moves that are each right alone can close a circle together, so moves take turns.
SELECT 1 FROM pg_advisory_xact_lock(hashtextextended('sb:teams', 0));

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
       OR t.id IN (SELECT CAST(g.value AS uuid)
                   FROM jsonb_array_elements_text(CAST(:covered AS jsonb)) AS g (value)))
ORDER BY t.created_at DESC, t.id DESC
LIMIT :limit;
