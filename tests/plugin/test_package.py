"""What a built package has of the plugin, and that it can be installed from it.

The wheel is built as a release is, and unpacked in the place of the checkout.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.checkout import ROOT, name_of
from tests.support.claude.client import need_client
from tests.support.claude.desk import Desk
from tests.support.shell import Shell

BUNDLED = "claudemesh_mcp/plugin/files/"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_package_has_all_that_the_plugin_is_made_of(package: Path) -> None:
    parts = [*(ROOT / ".claude-plugin").rglob("*"), *(ROOT / "skills").rglob("*")]
    wanted = [name_of(path) for path in parts if path.is_file()]
    assert len(wanted) >= 6
    for name in (*wanted, "requirements.lock", "README.md"):
        assert (package / BUNDLED / name).read_bytes() == (ROOT / name).read_bytes()
    for name in ("plugin/start.sh", "routes/hook.py", "routes/monitor.py", "statusline.py"):
        assert (package / "claudemesh_mcp" / name).is_file()


def test_the_plugin_of_a_package_is_valid_and_is_installed_from_the_home(
    package: Path, tmp_path: Path
) -> None:
    need_client()
    shell = Shell(tmp_path)
    desk = Desk.at(shell)
    done = desk.run("install", "--plugin", "--json", PYTHONPATH=str(package))
    assert done.code == 0, done
    # There was no home yet, and one that is open to others would be refused by every session.
    assert shell.home.stat().st_mode & 0o777 == 0o700
    folder = shell.home / "plugin"
    assert done.json["steps"][0]["write"] == str(folder)
    assert done.json["steps"][1]["run"].endswith(f"add --scope user {folder}")
    checked = desk.claude("plugin", "validate", "--strict", str(folder))
    assert checked.code == 0, checked.out
    for name in ("claudemesh_mcp/routes/hook.py", "broker/claudemesh_wire/__init__.py"):
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()
    again = desk.run("install", "--plugin", "--json", PYTHONPATH=str(package))
    assert again.json["steps"] == []
