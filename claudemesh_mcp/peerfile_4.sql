-- What the fourth version adds; `staleness.py` says what the columns mean.
ALTER TABLE inbox ADD COLUMN supersedes TEXT;
ALTER TABLE inbox ADD COLUMN superseded_by TEXT;
ALTER TABLE inbox ADD COLUMN git_sha TEXT;
ALTER TABLE inbox ADD COLUMN amends INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN withheld TEXT;
CREATE INDEX inbox_supersedes ON inbox (sender, supersedes) WHERE supersedes IS NOT NULL;
CREATE INDEX inbox_conditional ON inbox (row) WHERE state <> 'seen'
    AND (supersedes IS NOT NULL OR superseded_by IS NOT NULL OR git_sha IS NOT NULL);
