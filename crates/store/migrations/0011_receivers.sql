-- Definitions: written by config-api alone.

ALTER TABLE webhooks
    -- What its TLS sessions are made with beside what the operator's are; null: nothing.
    -- {"ca", "client_certificate": {"chain", "sealed_key"}}
    ADD COLUMN tls jsonb,
    -- How requests say who they come from, beside their signature; null: not at all. What is secret in it is sealed.
    -- {"type": "basic", "username", "sealed_password"}
    -- {"type": "oauth2_client_credentials", "token_url", "client_id", "sealed_client_secret", "scope"}
    ADD COLUMN authentication jsonb;
-- What the release before, which knows none of these, has left behind of deleted webhooks.
CREATE INDEX webhooks_deleted_with_secrets ON webhooks (id)
    WHERE deleted_at IS NOT NULL AND (tls IS NOT NULL OR authentication IS NOT NULL);
