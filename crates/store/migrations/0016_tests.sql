-- A test that brings a definition along has its secrets in it, sealed, for as long as it takes to hand it out. Of one that
-- does not say, nobody knows.
ALTER TABLE tests ADD COLUMN holds_secrets boolean NOT NULL DEFAULT true;
CREATE INDEX tests_with_secrets ON tests (id) WHERE holds_secrets;
