-- When a session that will end by itself was last seen alive, by the wall clock: a clock that is set
-- back over a restart gives it none of that time again.
ALTER TABLE sessions ADD COLUMN seen_ms INTEGER;  -- Unix time; NULL: never, or it does not end by itself
