"""Calling tools of other sessions: what is offered, what was approved, and the call itself."""
