-- Definitions: written by config-api alone.

-- Who is told by e-mail what is wrong in the project.
ALTER TABLE projects ADD COLUMN alert_emails text[] NOT NULL DEFAULT '{}';

-- The record: written by retry-scheduler alone.

-- Operational events on their way to stream EVENTS. Written in the transaction that records their cause, gone when
-- JetStream has them.
CREATE TABLE operational_events (
    -- What receivers see as the event's id: made of the cause, so that the same one is told once.
    id text PRIMARY KEY,
    position bigint GENERATED ALWAYS AS IDENTITY,
    project_id uuid NOT NULL,
    -- Null: it is about none.
    webhook_id uuid,
    type text NOT NULL,
    -- Why, in one line.
    reason text NOT NULL,
    -- What its data holds besides webhook and reason.
    detail jsonb NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX operational_events_position ON operational_events (position);

-- Webhooks of which it was told that they were stopped, until it is told that they deliver again.
CREATE TABLE stopped_webhooks (
    webhook_id uuid PRIMARY KEY,
    stopped_at timestamptz NOT NULL
);

-- Secrets of which it was told that they expire. A row leaves when its secret has.
CREATE TABLE expiring_secrets (
    webhook_id uuid NOT NULL,
    secret_id uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (webhook_id, secret_id)
);

-- Operational events that e-mails are to tell of; those of one kind that came together are one row. Gone when the mail is
-- with the mail server.
CREATE TABLE alerts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id uuid NOT NULL,
    -- Zeros: it is about no webhook.
    webhook_id uuid NOT NULL,
    type text NOT NULL,
    events integer NOT NULL,
    -- The last of them.
    reason text NOT NULL,
    detail jsonb NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL
);
CREATE INDEX alerts_webhook ON alerts (project_id, webhook_id, id);

-- Before when no further mail about a webhook is sent: a while after the last one, and while one is being sent.
CREATE TABLE alert_pauses (
    project_id uuid NOT NULL,
    webhook_id uuid NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (project_id, webhook_id)
);
