-- name: administrator_any :scalar
-- Returns 1 while somebody enabled, whose password is their own, holds both root permissions through
-- unscoped, endless grants.
-- Permissions are JSON, which the two databases search differently.
SELECT 1
FROM local_users AS u
WHERE NOT u.disabled
  AND NOT u.must_change_password
  AND EXISTS (SELECT 1 FROM user_roles AS ur JOIN roles AS r ON r.id = ur.role_id
              WHERE ur.user_id = u.id AND ur.scope = '{}' AND ur.expires_at IS NULL
                AND EXISTS (SELECT 1 FROM json_each(r.permissions) AS p WHERE p.value = 'role.edit'))
  AND EXISTS (SELECT 1 FROM user_roles AS ur JOIN roles AS r ON r.id = ur.role_id
              WHERE ur.user_id = u.id AND ur.scope = '{}' AND ur.expires_at IS NULL
                AND EXISTS (SELECT 1 FROM json_each(r.permissions) AS p WHERE p.value = 'user_role.edit'))
LIMIT 1;
