-- peers.py: by which routes a session's model is reached, as the session says, with commas between
-- them; and whether what goes to many goes to it: nobody reads it in a run of one prompt.
ALTER TABLE peers ADD COLUMN routes TEXT NOT NULL DEFAULT '';
ALTER TABLE peers ADD COLUMN multicast INTEGER NOT NULL DEFAULT 1;
