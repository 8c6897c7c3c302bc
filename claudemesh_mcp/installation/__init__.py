"""Puts claudemesh into Claude Code and takes it out again, as its user would by hand.

``cli/install.py`` asks for it. ``placing.py`` decides what is to be done, ``removing.py`` what is
to be undone; both make steps of it, which ``steps.py`` shows or takes. ``scopes.py`` says where
Claude Code keeps what is changed, ``jsonfile.py`` changes it, ``record.py`` remembers it.
"""
