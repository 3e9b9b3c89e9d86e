-- Sessions. Neither placeholders nor session tokens are stored, in any form: both are derived from
-- the instance key and the session's id.
CREATE TABLE sessions (
    id          TEXT    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL,
    credentials TEXT    NOT NULL,  -- a JSON array of names
    access_mode TEXT    NOT NULL CHECK (access_mode IN ('read-only', 'read-write')),
    created_ms  INTEGER NOT NULL,  -- Unix time
    expires_ms  INTEGER,           -- Unix time; NULL: does not
    ended_ms    INTEGER,           -- when it was revoked or replaced; NULL: it was not
    declaration TEXT               -- digest of what the config declared; NULL: made by an operator
) STRICT;

CREATE UNIQUE INDEX one_session_of_a_name ON sessions (name) WHERE ended_ms IS NULL;
