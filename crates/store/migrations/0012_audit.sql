-- Who did what: one row for each request that may change something, written before it is carried out. Written by
-- config-api alone.
CREATE TABLE audit_entries (
    -- UUID version 7: sorts by when the request came.
    id uuid PRIMARY KEY,
    -- Null: the installation's, such as making a project.
    project_id uuid,
    token_id uuid NOT NULL,
    method text NOT NULL,
    path text NOT NULL,
    request_id text NOT NULL,
    -- Who it came from, as far as this process knows; null where it does not.
    address text,
    begun_at timestamptz NOT NULL,
    -- What it was answered with; null: it never was.
    status smallint,
    -- Where what it made is found.
    location text,
    -- Whether its answer was to show a secret.
    reveals boolean NOT NULL DEFAULT false
);
CREATE INDEX audit_entries_project ON audit_entries (project_id, id);
