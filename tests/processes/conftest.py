"""The host and the two homes that tests here ask for, unless they have their own."""

from tests.support.twohomes import ada, bob, host

__all__ = ["ada", "bob", "host"]
