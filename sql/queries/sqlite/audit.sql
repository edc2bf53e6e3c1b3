-- name: audit_user_names :many
-- Returns the address and display name of each listed account.
-- The list arrives as JSON, which the two databases unpack differently.
SELECT id, email, display_name FROM local_users
WHERE id IN (SELECT value FROM json_each(:ids))
LIMIT 1000;

-- name: audit_agent_names :many
-- Returns the name of each listed agent.
-- The list arrives as JSON, which the two databases unpack differently.
SELECT id, name FROM agents
WHERE id IN (SELECT value FROM json_each(:ids))
LIMIT 1000;
