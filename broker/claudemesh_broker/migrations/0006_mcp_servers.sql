-- What peers offer to the mesh.

-- registrations.py: signed registrations of MCP servers, each with the certificate of its device and
-- the fence of the connection that said it last; away since those who see it were told so.
CREATE TABLE mcp_servers (
    mesh          TEXT NOT NULL,
    peer          TEXT NOT NULL,
    name          TEXT NOT NULL,
    member        TEXT NOT NULL,
    digest        BLOB NOT NULL,
    registration  BLOB NOT NULL,
    certificate   BLOB NOT NULL,
    visible_to    TEXT NOT NULL,
    tools         TEXT NOT NULL,
    persistent    INTEGER NOT NULL,
    registered_ms INTEGER NOT NULL,
    fence         INTEGER NOT NULL,
    away          INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (mesh, peer, name)
) STRICT;
