-- How far the rotation of a credential's secret has got. No secret is in it: those are in files, beside the
-- credential's own.
CREATE TABLE rotations (
    credential TEXT    NOT NULL PRIMARY KEY,
    step       TEXT    NOT NULL CHECK (step IN ('idle', 'asking', 'telling', 'overlap')),
    attempt    TEXT,              -- names the rotation under way to whoever makes the secret; NULL: none is
    operator   INTEGER NOT NULL,  -- whether an operator asked for it: 0 or 1
    rotated_ms INTEGER,           -- when there was a new secret last, Unix time; NULL: never
    since_ms   INTEGER NOT NULL,  -- from when on the next one's time is counted, Unix time
    retire_ms  INTEGER,           -- until when the old one is good, Unix time; NULL: none waits
    retry_ms   INTEGER,           -- not before, Unix time; NULL: the last attempt went well
    failures   INTEGER NOT NULL,  -- since something went well
    error      TEXT,              -- the last of them, in words of the broker's
    fix        TEXT               -- what mends that
) STRICT, WITHOUT ROWID;
