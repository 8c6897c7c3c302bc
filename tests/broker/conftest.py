"""The broker and the peers that tests here ask for."""

from tests.support.fixtures import ada, bob, broker, mesh

__all__ = ["ada", "bob", "broker", "mesh"]
