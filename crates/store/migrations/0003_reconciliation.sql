-- The record: written by retry-scheduler alone.

-- One row: up to which event it is known what became of every delivery.
CREATE TABLE reconciliation (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    -- Deliveries of events before this key are settled, wait for something, or are in missing_deliveries.
    checked_to uuid NOT NULL,
    checked_at timestamptz NOT NULL,
    -- The process that looks just now has until then to finish.
    claimed_until timestamptz NOT NULL
);

-- Deliveries that were owed and are nowhere: neither on record nor in the pipe.
CREATE TABLE missing_deliveries (
    event_key uuid NOT NULL,
    webhook_id uuid NOT NULL,
    project_id uuid NOT NULL,
    event_id text NOT NULL,
    found_at timestamptz NOT NULL,
    PRIMARY KEY (event_key, webhook_id)
);
CREATE INDEX missing_deliveries_project ON missing_deliveries (project_id, event_key);
