"""Servers that this peer offers to the mesh: what runs them, and what answers calls of them."""
