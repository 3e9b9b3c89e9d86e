-- What was given out, who followed, what was told, and how far the audit log reached.

-- Placeholders and session tokens that were given out, by SHA-256 alone. They outlive their session's
-- row, so that one of long ago is told apart from one that never was.
CREATE TABLE placeholders (
    digest     TEXT    NOT NULL PRIMARY KEY,  -- hex
    session_id TEXT    NOT NULL,
    credential TEXT,                          -- NULL: a session token
    given_ms   INTEGER NOT NULL               -- the first time, Unix time
) STRICT, WITHOUT ROWID;

-- Workers: one is one VM of an Envoy, from its start to its end.
CREATE TABLE workers (
    id            TEXT    NOT NULL PRIMARY KEY,
    first_seen_ms INTEGER NOT NULL,  -- Unix time
    last_seen_ms  INTEGER NOT NULL,  -- Unix time
    epoch         TEXT    NOT NULL,  -- the life of the broker that saw it last
    acked         INTEGER NOT NULL   -- the last change of that life it has applied
) STRICT, WITHOUT ROWID;

-- What the change feed has told. Cursors count within one life of the broker, its epoch.
CREATE TABLE changes (
    number  INTEGER PRIMARY KEY,
    epoch   TEXT    NOT NULL,
    cursor  INTEGER NOT NULL,
    kind    TEXT    NOT NULL CHECK (kind IN ('session', 'credential', 'all')),
    scope   TEXT    NOT NULL,  -- the session's id, the credential's name, or nothing
    told_ms INTEGER NOT NULL,  -- Unix time
    UNIQUE (epoch, cursor)
) STRICT;

-- Records that were in the audit log, and on disk: who cuts off a log's end cuts off one of these.
CREATE TABLE audit_heads (
    records  INTEGER NOT NULL PRIMARY KEY,  -- how many the log held
    hash     TEXT    NOT NULL,              -- of the last of them
    noted_ms INTEGER NOT NULL               -- Unix time
) STRICT;
