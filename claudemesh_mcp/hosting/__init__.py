"""Servers that this peer offers to the mesh: what runs them, and what answers calls of them.

``serving.py`` answers what comes over lines; ``keeping.py`` keeps a server running, and below it
``backend.py`` talks to it in raw JSON-RPC.
"""
