"""Routes into a model's context: what hooks, monitor and server share, by the standard library.

Claude Code starts ``hook.py`` and ``monitor.py`` by their paths, in an interpreter that sees no
installed package; the session's server imports the rest from here. What all of them know of a
session stands in the file of its peer.
"""
