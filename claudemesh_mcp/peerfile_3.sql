-- What the third version adds; `routes/offers.py` and `routes/bells.py` say what the columns mean.
ALTER TABLE inbox ADD COLUMN printed TEXT;
ALTER TABLE inbox ADD COLUMN printed_ms INTEGER;
ALTER TABLE inbox ADD COLUMN printed_by TEXT;
ALTER TABLE inbox ADD COLUMN printed_after TEXT;
CREATE INDEX inbox_printed ON inbox (row) WHERE printed IS NOT NULL AND state = 'handed';
CREATE TABLE bells (
    nonce TEXT PRIMARY KEY, route TEXT NOT NULL, rung_ms INTEGER NOT NULL, answered_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE pushes (
    row INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL, sender TEXT NOT NULL, member TEXT NOT NULL, handle TEXT NOT NULL,
    tokens INTEGER NOT NULL, route TEXT NOT NULL, turn TEXT
) STRICT;
CREATE INDEX pushes_at ON pushes (at_ms);
