-- What a session demands besides its placeholder: a JSON object of bindings; NULL: nothing. One that
-- cannot be read in full is refused, never taken for less than it says.
ALTER TABLE sessions ADD COLUMN bind TEXT;
