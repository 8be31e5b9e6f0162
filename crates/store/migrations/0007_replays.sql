-- Orders: written by config-api alone.

-- Deliveries to be made again, or dead letters to be discarded: which, how fast, and on whose word.
CREATE TABLE replays (
    id uuid PRIMARY KEY,
    -- The `run` of its deliveries.
    number integer GENERATED ALWAYS AS IDENTITY,
    project_id uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('replay', 'discard')),
    -- Which deliveries; null: whichever.
    webhooks uuid[],
    events uuid[],
    -- Those events' ids, as they were given.
    event_ids text[],
    -- Patterns.
    types text[],
    -- Keys of events: this and later ones, and those before this.
    from_key uuid,
    to_key uuid,
    -- Empty: whatever their state is, and whether or not there is one.
    states text[] NOT NULL,
    reasons text[],
    -- Deliveries begun in a second; null: as the operator says.
    per_second integer,
    -- How many there were when it was asked for; null: too many to be counted in time.
    counted bigint,
    -- Whose token asked for it.
    token_id uuid NOT NULL,
    token_name text NOT NULL,
    created_at timestamptz NOT NULL,
    cancelled_at timestamptz,
    CONSTRAINT replays_number_key UNIQUE (number)
);
CREATE INDEX replays_project ON replays (project_id, id);
CREATE INDEX replays_created_at ON replays (created_at);

-- The record: written by retry-scheduler alone.

-- How far an order has come.
CREATE TABLE replay_progress (
    replay_id uuid PRIMARY KEY REFERENCES replays ON DELETE CASCADE,
    -- The last delivery that was looked at; null: none yet.
    event_key uuid,
    webhook_id uuid,
    -- Deliveries made, or letters discarded.
    made bigint NOT NULL DEFAULT 0,
    -- Those of them that were withdrawn because the replay was cancelled, are dead, or are still under way.
    withdrawn bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    waiting bigint NOT NULL DEFAULT 0,
    -- Deliveries settled in a second, of late.
    rate double precision NOT NULL DEFAULT 0,
    -- What may be made by then has been made.
    paced_to timestamptz,
    started_at timestamptz NOT NULL,
    counted_at timestamptz NOT NULL,
    next_look_at timestamptz NOT NULL,
    -- When it was first seen to be cancelled.
    withdrawing_since timestamptz,
    -- When every delivery had been made.
    walked_at timestamptz,
    -- When every one was settled, too.
    finished_at timestamptz
);
CREATE INDEX replay_progress_open ON replay_progress (next_look_at) WHERE finished_at IS NULL;

-- A dead letter that somebody puts away is cancelled.
ALTER TABLE pending_deliveries
    DROP CONSTRAINT pending_deliveries_state_check,
    ADD CONSTRAINT pending_deliveries_state_check CHECK (
        state IN ('scheduled', 'released', 'parked', 'held', 'queued', 'behind', 'dead', 'cancelled'));

-- What belongs to a replay; there is nothing of it for the events' own deliveries.
CREATE INDEX pending_deliveries_run ON pending_deliveries (run, state) WHERE run > 0;
-- What happens goes ahead of what is made again.
CREATE INDEX pending_deliveries_parked_in_turn ON pending_deliveries (webhook_id, run, event_key) WHERE state = 'parked';
DROP INDEX pending_deliveries_parked;
CREATE INDEX attempts_run ON attempts (run, event_key, webhook_id) WHERE run > 0;

-- What became of each event for each webhook: one row for both, which the last run tells that there is something of. Of
-- a replay that was cancelled there is nothing, so the run before it tells.
CREATE VIEW delivery_states AS
SELECT event.key AS event_key, event.project_id, event.id AS event_id, event.type AS event_type, event.accepted_at,
       target.webhook_id,
       CASE WHEN told.by_pending THEN pending.run WHEN made.delivered THEN made.run ELSE 0 END AS run,
       CASE
           WHEN told.by_pending AND pending.state = 'released' THEN 'scheduled'
           WHEN told.by_pending AND pending.state = 'behind' THEN 'queued'
           WHEN told.by_pending THEN pending.state
           WHEN made.delivered THEN 'delivered'
           WHEN target.skip_reason IS NOT NULL THEN 'skipped'
           ELSE 'queued'
       END AS state,
       CASE WHEN told.by_pending THEN pending.reason WHEN made.delivered THEN NULL ELSE target.skip_reason END AS reason,
       CASE WHEN told.by_pending AND made.run IS DISTINCT FROM pending.run THEN 0 ELSE coalesce(made.attempts, 0) END
           AS attempts,
       CASE WHEN told.by_pending AND pending.state IN ('scheduled', 'parked') THEN pending.due_at END AS next_attempt_at,
       CASE
           WHEN told.by_pending THEN pending.updated_at
           WHEN made.delivered THEN made.finished_at
           ELSE event.accepted_at
       END AS updated_at
FROM events AS event
CROSS JOIN LATERAL (
    SELECT owed.webhook_id, NULL::text AS skip_reason FROM unnest(event.owed) AS owed (webhook_id)
    UNION ALL
    SELECT skipped.webhook_id, skipped.reason
    FROM unnest(event.skipped, event.skip_reasons) AS skipped (webhook_id, reason)
) AS target
LEFT JOIN LATERAL (
    SELECT delivery.run, delivery.state, delivery.reason, delivery.due_at, delivery.updated_at
    FROM pending_deliveries AS delivery
    WHERE delivery.event_key = event.key AND delivery.webhook_id = target.webhook_id
    ORDER BY delivery.run DESC LIMIT 1
) AS pending ON true
LEFT JOIN LATERAL (
    -- The last run that delivered or is pending; of no importance where there is none.
    SELECT run.run, run.delivered, run.attempts, run.finished_at
    FROM (
        SELECT attempt.run, bool_or(attempt.outcome = 'delivered') AS delivered, count(*) AS attempts,
               max(attempt.started_at + attempt.duration_us * interval '1 microsecond') AS finished_at
        FROM attempts AS attempt
        WHERE attempt.event_key = event.key AND attempt.webhook_id = target.webhook_id
        GROUP BY attempt.run
    ) AS run
    ORDER BY (run.delivered OR run.run IS NOT DISTINCT FROM pending.run) DESC, run.run DESC LIMIT 1
) AS made ON true
CROSS JOIN LATERAL (
    SELECT pending.run IS NOT NULL AND (made.run IS NULL OR NOT made.delivered OR pending.run >= made.run) AS by_pending
) AS told;
