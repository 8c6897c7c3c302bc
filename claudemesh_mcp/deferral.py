"""Puts off what libraries import at once and a session never uses.

``front.py`` calls it in the process of `claudemesh mcp`, before it imports the session. pydantic
imports ``importlib.metadata`` to look for plugins, and websockets to name its own version; readers
of e-mail, zip archives and tables come along: 2 MiB in every session, and 15 ms of its start.
"""

import importlib
import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, Final

_PACKAGE: Final = "importlib"
_NAME: Final = "metadata"
_METADATA: Final = f"{_PACKAGE}.{_NAME}"


class _Deferred(ModuleType):
    """Stands for ``importlib.metadata`` until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        """Import the module after all."""
        return getattr(_metadata(), name)

    def entry_points(self, **wanted: str) -> Any:
        """Import it when this is called: that somebody imports the function is no use of it yet."""
        return _metadata().entry_points(**wanted)


def defer_metadata() -> None:
    """Have ``importlib.metadata`` read when it is used, if it ever is."""
    spec = None if _METADATA in sys.modules else find_spec(_METADATA)
    if spec is not None:
        deferred = module_from_spec(spec)
        deferred.__class__ = _Deferred
        sys.modules[_METADATA] = deferred
        # As an import does: whoever imports it finds it as an attribute of its package.
        setattr(sys.modules[_PACKAGE], _NAME, deferred)


def _metadata() -> Any:
    if isinstance(sys.modules.get(_METADATA), _Deferred):
        del sys.modules[_METADATA]
    return importlib.import_module(_METADATA)
