"""Puts off what libraries import at once and a session never uses.

``front.py`` calls it in the process of `claudemesh mcp`, before it imports the session. Whatever is
put off is imported after all as soon as somebody uses it; if a library changes, nothing is saved
and nothing breaks.
"""

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, Final

_IMPORTLIB: Final = "importlib"
_METADATA: Final = "importlib.metadata"
_BACKEND: Final = "cryptography.hazmat.backends.openssl.backend"


class _Deferred(ModuleType):
    """Stands for a module until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        """Import the module after all."""
        if name == "__path__":  # An import asks every module whether it is a package.
            raise AttributeError(name)
        return getattr(_import(self.__name__), name)


class _DeferredMetadata(_Deferred):
    """Stands for ``importlib.metadata``, whose function many import and few call."""

    def entry_points(self, **wanted: str) -> Any:
        """Import the module, and find them."""
        return _import(_METADATA).entry_points(**wanted)


class _DeferredBackend:
    """Stands for the object that cryptography asks, before it makes a key, whether it can.

    OpenSSL has both algorithms from version 1.1.1 on, and refuses them itself where a mode of it
    forbids them.
    """

    def ed25519_supported(self) -> bool:
        """Say yes."""
        return True

    def x25519_supported(self) -> bool:
        """Say yes."""
        return True

    def __getattr__(self, name: str) -> Any:
        """Ask the true one all else."""
        return getattr(_import(_BACKEND).backend, name)


def defer() -> None:
    """Have modules imported when they are used, if they ever are."""
    _defer_metadata()
    _defer_backend()


def _defer_metadata() -> None:
    # pydantic imports it to look for plugins, and websockets to name its own version; readers of
    # e-mail, zip archives and tables come along: 2 MiB, and 15 ms of a session's start.
    spec = None if _METADATA in sys.modules else find_spec(_METADATA)
    if spec is not None:
        deferred = module_from_spec(spec)
        deferred.__class__ = _DeferredMetadata
        sys.modules[_METADATA] = deferred
        # As an import does: whoever imports it finds it as an attribute of its package.
        setattr(sys.modules[_IMPORTLIB], _METADATA.removeprefix(f"{_IMPORTLIB}."), deferred)


def _defer_backend() -> None:
    # It brings RSA, elliptic curves, paddings and ciphers to whoever makes an Ed25519 key: 0.6 MiB.
    if _BACKEND not in sys.modules:
        deferred = _Deferred(_BACKEND)
        vars(deferred)["backend"] = _DeferredBackend()
        sys.modules[_BACKEND] = deferred


def _import(name: str) -> Any:
    if isinstance(sys.modules.get(name), _Deferred):
        del sys.modules[name]
    return import_module(name)
