-- Definitions: written by config-api alone.

CREATE TABLE projects (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    profile text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT projects_name_key UNIQUE (name)
);

CREATE TABLE tokens (
    id uuid PRIMARY KEY,
    -- Null: good for every project.
    project_id uuid REFERENCES projects ON DELETE CASCADE,
    name text NOT NULL,
    -- SHA-256 of the token; the token itself is nowhere.
    hash bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT tokens_hash_key UNIQUE (hash)
);
CREATE INDEX tokens_project ON tokens (project_id, id);

CREATE TABLE webhooks (
    id uuid PRIMARY KEY,
    project_id uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    name text NOT NULL,
    url text NOT NULL,
    events text[] NOT NULL,
    -- [{"key", "value" | "sealed"}]: a protected header is sealed, any other is not.
    headers jsonb NOT NULL,
    sealed_secret text,
    active boolean NOT NULL,
    -- Null: the profile's. {"delays_ms": [0, …]}, or false for a single attempt.
    retry jsonb,
    -- Null: the profile's.
    timeout_ms integer,
    revision bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz
);
CREATE UNIQUE INDEX webhooks_project_name_key ON webhooks (project_id, name) WHERE deleted_at IS NULL;
CREATE INDEX webhooks_project ON webhooks (project_id, id) WHERE deleted_at IS NULL;

-- Who changed what and when; appended to, never edited. Holds no secret.
CREATE TABLE webhook_revisions (
    webhook_id uuid NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    revision bigint NOT NULL,
    definition jsonb NOT NULL,
    token_id uuid,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (webhook_id, revision)
);

-- Definitions on their way to the CONFIG bucket, written in the transaction that changed them. A row says which key has
-- changed; the relay publishes the definition as it then stands, so publishing twice, or late, is harmless.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text NOT NULL
);

-- The record: written by retry-scheduler alone.
-- Events and attempts are partitioned by the event's key, which sorts by day of acceptance, so an event and all its
-- attempts leave together when a day's partitions are dropped.

CREATE TABLE events (
    key uuid NOT NULL,
    id text NOT NULL,
    project_id uuid NOT NULL,
    type text NOT NULL,
    occurred_at timestamptz NOT NULL,
    accepted_at timestamptz NOT NULL,
    attributes jsonb,
    content_type text NOT NULL,
    -- bytea: the producer's bytes and key order survive.
    payload bytea NOT NULL,
    traceparent text NOT NULL,
    owed uuid[] NOT NULL,
    skipped uuid[] NOT NULL,
    skip_reasons text[] NOT NULL,
    PRIMARY KEY (key)
) PARTITION BY RANGE (key);
CREATE INDEX events_project ON events (project_id, key);
CREATE INDEX events_id ON events (project_id, id);

CREATE TABLE attempts (
    event_key uuid NOT NULL,
    webhook_id uuid NOT NULL,
    run integer NOT NULL,
    attempt integer NOT NULL,
    project_id uuid NOT NULL,
    event_id text NOT NULL,
    event_type text NOT NULL,
    webhook_revision bigint NOT NULL,
    started_at timestamptz NOT NULL,
    duration_us integer NOT NULL,
    -- delivered | failed
    outcome text NOT NULL,
    status smallint,
    error_class text,
    error text,
    next_attempt_at timestamptz,
    response_headers jsonb,
    response_body bytea,
    response_truncated boolean NOT NULL,
    request_sha256 bytea NOT NULL,
    -- Above 1: a process died or lost its connection, and the receiver may have seen this attempt more than once.
    handed_out integer NOT NULL,
    PRIMARY KEY (event_key, webhook_id, run, attempt)
) PARTITION BY RANGE (event_key);
CREATE INDEX attempts_project ON attempts (project_id, started_at);
CREATE INDEX attempts_webhook ON attempts (webhook_id, started_at);

-- Deliveries that were not settled by their first attempt. One that succeeds first time is never here.
-- scheduled: waits for due_at (recorder) · released: a duty for it is in DELIVERIES (release) · parked: its lane had no
-- room, waits its turn (recorder) · held: the webhook holds what comes while it is paused · dead: out of attempts
-- (recorder). A delivered one is deleted (recorder).
CREATE TABLE pending_deliveries (
    event_key uuid NOT NULL,
    webhook_id uuid NOT NULL,
    run integer NOT NULL,
    project_id uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('scheduled', 'released', 'parked', 'held', 'dead')),
    reason text NOT NULL,
    -- The attempt that is due next; for a dead delivery, the last one made.
    attempt integer NOT NULL,
    release integer NOT NULL,
    -- When it may be released; while released, when to begin to doubt that it is still in the pipe.
    due_at timestamptz,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (event_key, webhook_id, run)
);
CREATE INDEX pending_deliveries_due ON pending_deliveries (due_at) WHERE state IN ('scheduled', 'released');
CREATE INDEX pending_deliveries_parked ON pending_deliveries (webhook_id, event_key) WHERE state = 'parked';
CREATE INDEX pending_deliveries_released ON pending_deliveries (webhook_id) WHERE state = 'released';
CREATE INDEX pending_deliveries_state ON pending_deliveries (project_id, state, event_key);

CREATE TABLE rejected_events (
    key uuid PRIMARY KEY,
    -- Null: the subject names no project that exists.
    project_id uuid,
    subject text NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    payload bytea NOT NULL,
    payload_size bigint NOT NULL,
    received_at timestamptz NOT NULL
);
CREATE INDEX rejected_events_project ON rejected_events (project_id, key);

-- Ledger entries that can never be recorded, set aside with the reason.
CREATE TABLE poisoned_entries (
    stream_sequence bigint NOT NULL,
    stored_at timestamptz NOT NULL,
    subject text NOT NULL,
    reason text NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (stored_at, stream_sequence)
);
