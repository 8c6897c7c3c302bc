-- The tables of a peer's file; `inbox.py` and `outbox.py` say what the columns mean.
CREATE TABLE inbox (
    row INTEGER PRIMARY KEY,
    sender TEXT NOT NULL, id TEXT NOT NULL, header_hash BLOB NOT NULL, certificate BLOB NOT NULL,
    conv TEXT NOT NULL, seq INTEGER NOT NULL, handle TEXT NOT NULL, member TEXT NOT NULL,
    member_name TEXT NOT NULL, text TEXT NOT NULL, stripped INTEGER NOT NULL,
    priority TEXT NOT NULL, thread TEXT, re TEXT, via TEXT, e2e INTEGER NOT NULL,
    sent_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'handed', 'seen')),
    holder TEXT, lease_until_ms INTEGER NOT NULL DEFAULT 0, offers INTEGER NOT NULL DEFAULT 0,
    route TEXT, seen_ms INTEGER,
    UNIQUE (sender, id)
) STRICT;
CREATE INDEX inbox_open ON inbox (row) WHERE state <> 'seen';
CREATE INDEX inbox_received ON inbox (received_ms);
CREATE TABLE inbox_seq (
    sender TEXT NOT NULL, conv TEXT NOT NULL, highest INTEGER NOT NULL,
    PRIMARY KEY (sender, conv)
) STRICT, WITHOUT ROWID;
CREATE TABLE reports (
    row INTEGER PRIMARY KEY,
    sender TEXT NOT NULL, id TEXT NOT NULL, header_hash BLOB NOT NULL, status TEXT NOT NULL,
    route TEXT NOT NULL, reason TEXT NOT NULL, at_ms INTEGER NOT NULL,
    UNIQUE (sender, id, status)
) STRICT;
CREATE TABLE outbox (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE, conv TEXT NOT NULL, seq INTEGER NOT NULL,
    request_hash BLOB NOT NULL, addresses TEXT NOT NULL, plaintext BLOB, sealed BLOB,
    header_hash BLOB NOT NULL, audience TEXT NOT NULL, resolved_ms INTEGER NOT NULL,
    re TEXT, ttl_ms INTEGER NOT NULL, created_ms INTEGER NOT NULL, sealings INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'accepted', 'refused')),
    answer TEXT
) STRICT;
CREATE INDEX outbox_waiting ON outbox (conv, seq) WHERE state = 'waiting';
CREATE TABLE outbox_seq (conv TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE names (
    name TEXT PRIMARY KEY, member TEXT NOT NULL, first_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
