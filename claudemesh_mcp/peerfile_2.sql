-- What the second version adds; `inbox.py` and `policy.py` say what the columns mean.
ALTER TABLE inbox ADD COLUMN held TEXT;
ALTER TABLE inbox ADD COLUMN wakes INTEGER NOT NULL DEFAULT 1;
CREATE INDEX inbox_held ON inbox (row) WHERE held IS NOT NULL;
-- What was said, and how far `textindex.py` has come with it; it makes the index itself.
ALTER TABLE outbox ADD COLUMN thread TEXT;
CREATE TABLE indexed (source TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
