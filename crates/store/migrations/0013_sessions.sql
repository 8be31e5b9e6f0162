-- Who is logged in to the console. Written by config-api alone. A session is as good as its token, and no longer.
CREATE TABLE sessions (
    -- SHA-256 of what the browser's cookie holds; that itself is nowhere.
    hash bytea PRIMARY KEY CHECK (length(hash) = 32),
    token_id uuid NOT NULL REFERENCES tokens ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    -- When a request was last made with it, to the minute.
    seen_at timestamptz NOT NULL
);
CREATE INDEX sessions_token ON sessions (token_id, created_at);
