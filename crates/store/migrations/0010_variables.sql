-- Definitions: written by config-api alone.

-- What the transform finds under `variables`: [{"key", "value" | "sealed"}], like the headers.
ALTER TABLE webhooks ADD COLUMN variables jsonb NOT NULL DEFAULT '[]';
