-- What a session's own tokens may reach, where that is less than the credential's may: a JSON object of scopes, by the
-- credential's name; NULL: all of it. One that cannot be read in full is refused, never taken for less than it says.
ALTER TABLE sessions ADD COLUMN scopes TEXT;
