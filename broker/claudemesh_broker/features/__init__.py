"""The features, each a file of handlers; importing this package registers all of them."""

from claudemesh_broker.features import groups, invites, meshes, messages, presence, receipts, search

__all__ = ["groups", "invites", "meshes", "messages", "presence", "receipts", "search"]
