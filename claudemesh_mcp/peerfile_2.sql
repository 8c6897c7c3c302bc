-- What the second version adds; `inbox.py` and `policy.py` say what the columns mean.
ALTER TABLE inbox ADD COLUMN held TEXT;
ALTER TABLE inbox ADD COLUMN wakes INTEGER NOT NULL DEFAULT 1;
CREATE INDEX inbox_held ON inbox (row) WHERE held IS NOT NULL;
