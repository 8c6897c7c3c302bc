-- The tables of the core. Ids are text (p_…, mem_…, mesh_…, msg_…), times are milliseconds since
-- the epoch, hashes are 32 raw bytes. Each table is written by the one file its comment names.

-- embedded.py: facts about this data folder (broker_id). The signing key is a file, never a row.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- roster.py: the meshes this broker serves.
CREATE TABLE meshes (
    mesh       TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- roster.py: the signed log that says who is a member, in which role. It is appended to by
-- compare-and-set on (seq, hash), and never changed.
CREATE TABLE membership (
    mesh  TEXT NOT NULL,
    seq   INTEGER NOT NULL,
    hash  BLOB NOT NULL,
    entry BLOB NOT NULL,
    PRIMARY KEY (mesh, seq)
) STRICT, WITHOUT ROWID;

-- peers.py: every session that was seen in the last 30 days. fence counts its attaches: whoever
-- holds an older number has been replaced. A peer is here while its lease runs (attached = 1: a
-- socket renews it); departed_ms is empty from the notice that it came to the notice that it left.
-- wish is the name it asked for, handle the one it got, empty once it went to another peer;
-- certificate_hash is its newest certificate, empty until there is one with a new handle.
CREATE TABLE peers (
    mesh             TEXT NOT NULL,
    peer             TEXT NOT NULL,
    member           TEXT NOT NULL,
    handle           TEXT,
    wish             TEXT,
    type             TEXT NOT NULL,
    channel          TEXT,
    model            TEXT,
    host             TEXT,
    project          TEXT,
    cwd              TEXT,
    status           TEXT NOT NULL,
    summary          TEXT NOT NULL DEFAULT '',
    role             TEXT NOT NULL DEFAULT '',
    profile          TEXT NOT NULL DEFAULT '{}',
    client_version   TEXT,
    certificate_hash BLOB,
    kem_generation   INTEGER,
    node             TEXT,
    fence            INTEGER NOT NULL DEFAULT 0,
    attached         INTEGER NOT NULL DEFAULT 0,
    lease_until_ms   INTEGER,
    first_seen_ms    INTEGER NOT NULL,
    last_seen_ms     INTEGER NOT NULL,
    departed_ms      INTEGER,
    visible          INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (mesh, peer)
) STRICT;

CREATE UNIQUE INDEX peers_handle ON peers (mesh, handle) WHERE handle IS NOT NULL;
CREATE INDEX peers_lease ON peers (lease_until_ms) WHERE lease_until_ms IS NOT NULL;

-- peers.py: certificates by hash, kept as long as a peer, an envelope or a receipt names them.
CREATE TABLE certificates (
    hash           BLOB PRIMARY KEY,
    mesh           TEXT NOT NULL,
    peer           TEXT NOT NULL,
    member         TEXT NOT NULL,
    blob           BLOB NOT NULL,
    kem_generation INTEGER NOT NULL,
    not_before_ms  INTEGER NOT NULL,
    not_after_ms   INTEGER NOT NULL,
    published_ms   INTEGER NOT NULL
) STRICT;

CREATE INDEX certificates_of_peer ON certificates (mesh, peer, kem_generation);

-- features/groups.py: which peer is in which group, in which role.
CREATE TABLE groups (
    mesh      TEXT NOT NULL,
    name      TEXT NOT NULL,
    peer      TEXT NOT NULL,
    role      TEXT,
    joined_ms INTEGER NOT NULL,
    PRIMARY KEY (mesh, name, peer)
) STRICT, WITHOUT ROWID;

CREATE INDEX groups_of_peer ON groups (mesh, peer);

-- features/meshes.py: whom a member wants to hear nothing from.
CREATE TABLE blocks (
    mesh     TEXT NOT NULL,
    owner    TEXT NOT NULL,
    blocked  TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (mesh, owner, blocked)
) STRICT, WITHOUT ROWID;

-- queues.py: one row per accepted message, until a day after it expires: so long its id answers a
-- repeated send with the first result. Rows are narrow because pending changes with every ack.
-- AUTOINCREMENT: a reader asks for what is beyond the last number it saw, so none may come twice.
CREATE TABLE messages (
    seq              INTEGER PRIMARY KEY AUTOINCREMENT,
    mesh             TEXT NOT NULL,
    sender           TEXT NOT NULL,
    id               TEXT NOT NULL,
    conversation     TEXT NOT NULL,
    header_hash      BLOB NOT NULL,
    certificate_hash BLOB NOT NULL,
    size_bytes       INTEGER NOT NULL,
    accepted_ms      INTEGER NOT NULL,
    expires_ms       INTEGER NOT NULL,
    pending          INTEGER NOT NULL,
    -- With the mesh: a peer of one mesh can't use up the ids of a peer of another.
    UNIQUE (mesh, sender, id)
) STRICT;

CREATE INDEX messages_expiring ON messages (expires_ms) WHERE pending > 0;

-- queues.py: the sealed parts of a message, less its slots; deleted when nobody waits for them.
-- Apart from messages, so that an ack never rewrites a body.
CREATE TABLE envelopes (
    seq         INTEGER PRIMARY KEY,
    header      BLOB NOT NULL,
    slot_hashes BLOB NOT NULL,
    signature   BLOB NOT NULL,
    body        BLOB NOT NULL
) STRICT;

-- queues.py: what became of a message for each of its recipients. status is queued, held,
-- delivered, seen, declined or expired; queued_ms is empty while the recipient was attached all the
-- time, and the time of acceptance if it was not attached then; position is the recipient's place in
-- the header's `to`; the slot goes when the recipient has it.
CREATE TABLE deliveries (
    seq               INTEGER NOT NULL,
    recipient         TEXT NOT NULL,
    position          INTEGER NOT NULL,
    status            TEXT NOT NULL,
    queued_ms         INTEGER,
    delivered_ms      INTEGER,
    seen_ms           INTEGER,
    declined_ms       INTEGER,
    reason            TEXT,
    route             TEXT,
    delivered_receipt INTEGER,
    seen_receipt      INTEGER,
    declined_receipt  INTEGER,
    slot              BLOB,
    PRIMARY KEY (seq, recipient)
) STRICT, WITHOUT ROWID;

CREATE INDEX deliveries_waiting ON deliveries (recipient, seq) WHERE status = 'queued';

-- outcomes.py: receipts as their recipients signed them. One may cover hundreds of deliveries, so
-- those name it by number.
CREATE TABLE receipts (
    receipt INTEGER PRIMARY KEY AUTOINCREMENT,
    mesh    TEXT NOT NULL,
    peer    TEXT NOT NULL,
    made_ms INTEGER NOT NULL,
    blob    BLOB NOT NULL
) STRICT;

-- queues.py: how much waits for each recipient, so that a quota is one look and not a count.
CREATE TABLE queues (
    mesh     TEXT NOT NULL,
    peer     TEXT NOT NULL,
    messages INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    PRIMARY KEY (mesh, peer)
) STRICT, WITHOUT ROWID;

-- scheduler.py: what is due when. The number is the fence: a row that is set anew gets a new one,
-- and only who holds the present one may end it.
CREATE TABLE schedule (
    fence    INTEGER PRIMARY KEY AUTOINCREMENT,
    kind     TEXT NOT NULL,
    key      TEXT NOT NULL,
    due_ms   INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    payload  TEXT NOT NULL DEFAULT '{}',
    UNIQUE (kind, key)
) STRICT;

CREATE INDEX schedule_due ON schedule (due_ms);
