"""The Claude Code plugin: starts its parts, and makes the environment that the server needs.

The client starts ``start.sh`` by what ``.claude-plugin/`` says; that hands on to ``start.py`` for
the server, and to ``routes/`` for hooks and monitor. ``entries.py`` says which hooks there are.
"""
