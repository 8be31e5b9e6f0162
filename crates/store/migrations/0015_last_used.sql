-- When a request to config-api last had the token, to the minute; null: none has since this is noted. Written by config-api
-- alone. The policies of `tokens` (0014_tenancy.sql) hold for it as for the rest of the row.
ALTER TABLE tokens ADD COLUMN last_used_at timestamptz;
