"""The broker: it routes, stores and schedules for the sessions of a mesh, and opens no message."""
