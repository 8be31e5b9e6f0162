-- The record: written by retry-scheduler alone.

-- Two more states of deliveries that wait, and one that ends them.
-- queued: goes out in order and is the next of its key, as far as is known (recorder) · behind: goes out in order, and
-- another of its key comes first (recorder) · cancelled: ended before the receiver had it, because its webhook was
-- deleted or somebody wanted it so (recorder, release).
ALTER TABLE pending_deliveries
    DROP CONSTRAINT pending_deliveries_state_check,
    ADD CONSTRAINT pending_deliveries_state_check CHECK (
        state IN ('scheduled', 'released', 'parked', 'held', 'queued', 'behind', 'dead', 'cancelled')),
    -- Deliveries of one webhook with the same key go out one after the other, the oldest event's first; null: unordered.
    ADD COLUMN order_key uuid;

CREATE INDEX pending_deliveries_held ON pending_deliveries (webhook_id, run, event_key) WHERE state = 'held';
CREATE INDEX pending_deliveries_queued ON pending_deliveries (webhook_id, event_key) WHERE state = 'queued';
-- What is not settled, by key: who is first, and whether anybody is.
CREATE INDEX pending_deliveries_order ON pending_deliveries (webhook_id, order_key, event_key)
    WHERE order_key IS NOT NULL AND state IN ('scheduled', 'released', 'parked', 'held', 'queued', 'behind');
-- What a deleted webhook leaves behind.
CREATE INDEX pending_deliveries_waiting ON pending_deliveries (webhook_id, event_key)
    WHERE state IN ('scheduled', 'parked', 'held', 'queued', 'behind');

-- Webhooks whose held deliveries are released no faster than they want: when the next one may go.
CREATE TABLE drains (
    webhook_id uuid PRIMARY KEY,
    next_at timestamptz NOT NULL
);
