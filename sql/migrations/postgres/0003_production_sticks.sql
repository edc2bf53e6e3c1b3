-- A secret that serves production stays production's, however it is bound afterwards; and each request keeps
-- the kind its rules were chosen by.

ALTER TABLE secrets ADD COLUMN became_prod_at timestamptz;
-- Not all of a long path: entries of an index have a largest size.
CREATE INDEX secrets_prod_idx ON secrets (provider_type, left(lower(secret_ref), 255)) WHERE became_prod_at IS NOT NULL;
ALTER TABLE access_requests ADD COLUMN snap_environment_kind text
  CONSTRAINT access_requests_snap_environment_kind_known CHECK (snap_environment_kind IN ('non_prod', 'prod'));

UPDATE secrets SET became_prod_at = (
  SELECT min(b.created_at) FROM project_secrets AS b
  JOIN environments AS e ON e.project_id = b.project_id AND e.kind = 'prod'
  WHERE b.secret_id = secrets.id AND (b.environment_id IS NULL OR b.environment_id = e.id));
UPDATE access_requests SET snap_environment_kind = (
  SELECT e.kind FROM environments AS e WHERE e.id = access_requests.environment_id)
WHERE environment_id IS NOT NULL;
