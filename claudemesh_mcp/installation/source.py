"""Where Claude Code takes the plugin from: the checkout, or a folder made of an installed package.

``placing.py`` asks. A package that was installed has the plugin's own files in it, but not in the
order that the client wants them in; ``Assemble`` puts them into that order.
"""

import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from claudemesh_mcp.home import private_folder
from claudemesh_mcp.installation.scopes import Site
from claudemesh_wire import VERSION

_PACKAGE: Final = Path(__file__).resolve().parents[1]
_CHECKOUT: Final = _PACKAGE.parent
_BUNDLED: Final = _PACKAGE / "plugin" / "files"
_BESIDE: Final = ("claudemesh_broker", "claudemesh_wire")
_STAMP: Final = "version"


def plugin_folder(data: Path) -> Path:
    """Give the folder of the plugin, whether it is there or is going to be made.

    Args:
        data: The home.
    """
    return _CHECKOUT if _is_plugin(_CHECKOUT) else data / "plugin"


def lost(site: Site) -> Path | None:
    """Give the folder that Claude Code reads the plugin from, if it holds no plugin any more.

    Args:
        site: Where Claude Code keeps things.
    """
    folder = site.marketplace_folder
    return None if folder is None or folder.is_file() or _is_plugin(folder) else folder


@dataclass(frozen=True)
class Assemble:
    """Puts the plugin of this version together.

    Args:
        folder: Where.
    """

    folder: Path

    def shown(self) -> dict[str, Any]:
        """Say what it does; nothing, if it is there."""
        stamp = self.folder / _STAMP
        if self.folder == _CHECKOUT or (stamp.exists() and stamp.read_text("utf-8") == VERSION):
            return {}
        return {"write": str(self.folder), "changes": [f"the plugin of version {VERSION}"]}

    def take(self) -> dict[str, Any]:
        """Do it.

        Raises:
            OSError: the disk refuses.
        """
        told = self.shown()
        if told:
            private_folder(self.folder.parent)
            fresh = self.folder.with_name(f"{self.folder.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(_BUNDLED, fresh)
            _copy(_PACKAGE, fresh)
            for package in _BESIDE:
                _copy(_folder_of(package), fresh / "broker")
            (fresh / _STAMP).write_text(VERSION, "utf-8")
            shutil.rmtree(self.folder, ignore_errors=True)
            fresh.replace(self.folder)
        return told


def _copy(package: Path, into: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "files")
    shutil.copytree(package, into / package.name, ignore=ignored)


def _folder_of(package: str) -> Path:
    # Found and not imported: the broker is a program beside this one.
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise FileNotFoundError(f"there is no {package} beside claudemesh_mcp")
    return Path(folders[0])


def _is_plugin(folder: Path) -> bool:
    return (folder / ".claude-plugin" / "marketplace.json").is_file()
