-- How many webhooks a project has deleted of late is asked when it makes another, and so is how many tokens it has.
CREATE INDEX webhooks_deleted ON webhooks (project_id, deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX tokens_not_revoked ON tokens (project_id) WHERE revoked_at IS NULL;
