-- Definitions: written by config-api alone.

ALTER TABLE webhooks
    -- What requests are signed with, the current one first:
    -- [{"id", "kind", "sealed", "public_key", "created_at_us", "expires_at_us"}].
    ADD COLUMN secrets jsonb NOT NULL DEFAULT '[]',
    -- The `sealed_secret` beside which `secrets` was written. Where that is another by now, the release before, which knows
    -- no `secrets`, has written it, and it is the one secret there is.
    ADD COLUMN secrets_of text,
    -- When the first of them expires, to be erased.
    ADD COLUMN secrets_expire_at timestamptz;
CREATE INDEX webhooks_secrets_expire ON webhooks (secrets_expire_at) WHERE secrets_expire_at IS NOT NULL;
-- What the release before has left behind.
CREATE INDEX webhooks_secrets_outdated ON webhooks (id)
    WHERE secrets_of IS DISTINCT FROM sealed_secret OR (deleted_at IS NOT NULL AND secrets <> '[]');
