-- The record: written by retry-scheduler alone.

ALTER TABLE attempts
    -- Microseconds: the parts of making a connection, null where one was there already; and from the begin to the
    -- response's head, null where none came.
    ADD COLUMN dns_us integer,
    ADD COLUMN connect_us integer,
    ADD COLUMN tls_us integer,
    ADD COLUMN first_byte_us integer,
    -- Address and port that was talked to.
    ADD COLUMN peer text,
    -- What was wrong with the TLS session, in one word.
    ADD COLUMN tls_fault text,
    -- The 32 bits of a checksum of method, url and header lines; what is shown of a request later is compared with it.
    ADD COLUMN request_head integer,
    -- The transaction that recorded it. What belongs to transactions before the oldest that is still going on is complete:
    -- so attempts can be read in the order in which they were recorded, and none is missed.
    ADD COLUMN recorded bigint;
-- Also for rows of the release before.
ALTER TABLE attempts ALTER COLUMN recorded SET DEFAULT (pg_current_xact_id()::text::bigint);
CREATE INDEX attempts_recorded ON attempts (project_id, recorded);
