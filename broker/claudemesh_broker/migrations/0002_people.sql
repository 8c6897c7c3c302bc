-- Other people, other machines: ways in, grants, what is held, what stays of a peer.

-- features/invites.py: the signed invites of a mesh, by the code that stands in their URL. The
-- one-time key of an invite is never here; its uses are counted by the membership log.
CREATE TABLE invites (
    code       TEXT PRIMARY KEY,
    mesh       TEXT NOT NULL,
    invite     BLOB NOT NULL,
    made_by    TEXT NOT NULL,
    made_ms    INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX invites_expiring ON invites (expires_ms);

-- roster.py: meshes that an owner has ended; their logs are not taken again.
CREATE TABLE ended_meshes (
    mesh     TEXT PRIMARY KEY,
    ended_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- features/grants.py, which also writes the blocks of the core: what a member lets another do, as
-- the granting member signed it; seq rises with each statement of the same pair.
CREATE TABLE grants (
    mesh    TEXT NOT NULL,
    owner   TEXT NOT NULL,
    subject TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    entry   BLOB NOT NULL,
    made_ms INTEGER NOT NULL,
    PRIMARY KEY (mesh, owner, subject)
) STRICT, WITHOUT ROWID;

CREATE INDEX grants_of_subject ON grants (mesh, subject);

-- queues.py and outcomes.py: what a recipient's grants hold back. held_ms is set when the broker
-- holds it by its copy of them: the row waits in the queue like any other. held_receipt is the
-- recipient's signed word that it keeps the message apart; its status is held then, and it has left
-- the queue.
ALTER TABLE deliveries ADD COLUMN held_ms INTEGER;
ALTER TABLE deliveries ADD COLUMN held_receipt INTEGER;

-- peers.py, heirs.py, absence.py: the peer that took the place of this one, and whether this one
-- came back all the same; whether others are shown its folder; when it was archived; and what it did
-- in all its stays together. attached_ms is when the present stay began.
ALTER TABLE peers ADD COLUMN successor TEXT;
ALTER TABLE peers ADD COLUMN returned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peers ADD COLUMN share_cwd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peers ADD COLUMN archived_ms INTEGER;
ALTER TABLE peers ADD COLUMN attached_ms INTEGER;
ALTER TABLE peers ADD COLUMN sessions INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peers ADD COLUMN sent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peers ADD COLUMN received INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peers ADD COLUMN online_ms INTEGER NOT NULL DEFAULT 0;

CREATE INDEX peers_successor ON peers (mesh, successor) WHERE successor IS NOT NULL;

-- heirs.py: who is to read what was sealed to a peer that ended.
ALTER TABLE deliveries ADD COLUMN heir TEXT;

CREATE INDEX deliveries_inherited ON deliveries (heir, seq, recipient) WHERE heir IS NOT NULL;

-- handles.py: handles that were somebody's, kept for that member for 30 days after it let them go.
CREATE TABLE kept_handles (
    mesh     TEXT NOT NULL,
    handle   TEXT NOT NULL,
    member   TEXT NOT NULL,
    until_ms INTEGER NOT NULL,
    PRIMARY KEY (mesh, handle)
) STRICT, WITHOUT ROWID;
