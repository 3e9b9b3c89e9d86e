-- Until when a session may read and write though its access mode is read-only. The mode itself stays:
-- whatever happens to the process, what is left when the time is over is read-only.
ALTER TABLE sessions ADD COLUMN elevated_until_ms INTEGER;  -- Unix time; NULL: it is not
