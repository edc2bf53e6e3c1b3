-- Indexes for large organisations: grants by the place they are for, rules by what they are pinned to, and
-- requests by the path they point at.

CREATE INDEX user_roles_team_idx ON user_roles ((scope ->> 'team_id')) WHERE scope ->> 'team_id' IS NOT NULL;
CREATE INDEX user_roles_project_idx ON user_roles ((scope ->> 'project_id')) WHERE scope ->> 'project_id' IS NOT NULL;
CREATE INDEX user_roles_environment_idx ON user_roles ((scope ->> 'environment_id'))
  WHERE scope ->> 'environment_id' IS NOT NULL;
-- Those for no place in particular may be for every place.
CREATE INDEX user_roles_unplaced_idx ON user_roles (role_id, user_id)
  WHERE scope ->> 'team_id' IS NULL AND scope ->> 'project_id' IS NULL AND scope ->> 'environment_id' IS NULL;

-- Most rules of a platform with many are for one project or one path. Only the beginning of a long path is kept:
-- entries of an index have a largest size.
CREATE INDEX policy_rules_pins_idx ON policy_rules (
  left(coalesce(selector ->> 'project_id', ''), 36), left(coalesce(selector ->> 'secret_ref_prefix', ''), 60))
  WHERE enabled AND project_id IS NULL AND team_id IS NULL;

-- In the order of characters, not of a language, so that a beginning is a range; and not all of a long path either.
CREATE INDEX access_requests_ref_idx ON access_requests (left(target_secret_ref, 255) text_pattern_ops);
