-- Definitions: written by config-api alone.

-- What is done with an event that its type's schema refuses: off | warn | reject; null: as the profile says.
ALTER TABLE projects ADD COLUMN schema_check text CHECK (schema_check IN ('off', 'warn', 'reject'));

ALTER TABLE webhooks
    ADD COLUMN description text NOT NULL DEFAULT '',
    ADD COLUMN labels jsonb NOT NULL DEFAULT '{}',
    -- What an event's attributes have to be.
    ADD COLUMN attributes jsonb NOT NULL DEFAULT '{}',
    -- What the webhook says itself of how it is delivered to; what it leaves open, the profile says.
    ADD COLUMN settings jsonb NOT NULL DEFAULT '{}',
    -- The endpoint check it has to pass before it gets events; null: none.
    ADD COLUMN check_id uuid,
    -- What stopped it before this instant is void.
    ADD COLUMN restarted_at timestamptz;
CREATE INDEX webhooks_labels ON webhooks USING gin (labels jsonb_path_ops) WHERE deleted_at IS NULL;

-- A project's own event types, each version a row. Catalogues are files, not rows.
CREATE TABLE event_types (
    project_id uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    name text NOT NULL,
    version text NOT NULL,
    -- Versions in the order they were made.
    position bigint GENERATED ALWAYS AS IDENTITY,
    description text NOT NULL,
    -- JSON texts, as they were given.
    schema text,
    example text,
    deprecated boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (project_id, name, version)
);

-- Requests made to try a webhook. What became of one is its attempt, (id, target, 0, 1).
CREATE TABLE tests (
    -- The key of its event, too.
    id uuid PRIMARY KEY,
    project_id uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('test', 'check')),
    -- Null: it tries a definition that is not stored.
    webhook_id uuid REFERENCES webhooks ON DELETE CASCADE,
    -- The webhook's id, or the test's own.
    target uuid NOT NULL,
    event_type text NOT NULL,
    -- The duty, as it goes to dispatcher. What is secret in it is sealed.
    due bytea NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX tests_project ON tests (project_id, id);

-- Answers to requests with an Idempotency-Key, so that a repeated request gets the first one's.
CREATE TABLE idempotency_keys (
    token_id uuid NOT NULL REFERENCES tokens ON DELETE CASCADE,
    key text NOT NULL,
    -- SHA-256 of method, path and body.
    fingerprint bytea NOT NULL,
    -- Null while the first request is at work. Sealed, because some answers hold a secret.
    sealed_answer text,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (token_id, key)
);
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);

-- The record: written by retry-scheduler alone.

-- What the schema of an event's type has against it.
ALTER TABLE events ADD COLUMN warnings text[] NOT NULL DEFAULT '{}';

-- Set where the request was made to try the webhook: test | check.
ALTER TABLE attempts ADD COLUMN trial text;

-- How a webhook's deliveries go. What stops a webhook here is brought to ingest and dispatcher by config-api's relay:
-- the row's change is noted in the outbox in the same transaction. A row for a webhook that has had attempts.
CREATE TABLE webhook_health (
    webhook_id uuid PRIMARY KEY,
    -- Failed attempts since the last delivered one, or since the restart.
    failures_in_a_row integer NOT NULL DEFAULT 0,
    -- When an attempt ended so. The former is not written anew for a while, lest every batch rewrite a busy webhook's row.
    last_delivered_at timestamptz,
    last_failed_at timestamptz,
    -- failed: too many failures in a row · disabled: the receiver said that it is gone. Null: it was never stopped.
    stopped_state text CHECK (stopped_state IN ('failed', 'disabled')),
    stopped_reason text,
    stopped_at timestamptz,
    -- The last endpoint check that the webhook had to pass, and what was wrong; a null error is a check passed.
    check_id uuid,
    check_error text
);
