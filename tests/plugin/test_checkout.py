"""Which folder counts as the project of a folder, as the client itself counts it.

Git makes what is looked at. `tests/claude/test_installation_places.py` asks the real client.
"""

from pathlib import Path

import pytest

from claudemesh_mcp.installation.checkout import root_of, settings_folder
from tests.support.owners import somebody_elses
from tests.support.repository import git, repository


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return repository(tmp_path / "main")


def below(folder: Path) -> Path:
    made = folder / "a" / "b"
    made.mkdir(parents=True)
    return made


def test_a_folder_outside_of_any_checkout_has_no_root(tmp_path: Path) -> None:
    assert root_of(tmp_path) is None
    assert settings_folder(tmp_path) == tmp_path


def test_a_folder_below_counts_as_the_root(main: Path) -> None:
    folder = below(main)
    assert (root_of(folder), settings_folder(folder)) == (main, main)


def test_a_work_tree_counts_as_the_checkout_that_it_was_made_from(main: Path) -> None:
    tree = main.parent / "tree"
    git(main, "worktree", "add", "--quiet", str(tree))
    assert (root_of(tree), root_of(below(tree))) == (main, main)
    inner = main / ".claude" / "worktrees" / "one"
    git(main, "worktree", "add", "--quiet", str(inner))
    assert root_of(inner) == main


def test_a_work_tree_that_was_moved_by_hand_counts_as_itself(main: Path) -> None:
    git(main, "worktree", "add", "--quiet", str(main.parent / "tree"))
    moved = (main.parent / "tree").rename(main.parent / "moved")
    assert root_of(moved) == moved


def test_a_work_tree_of_a_bare_repository_counts_as_that(main: Path) -> None:
    bare, tree = main.parent / "bare.git", main.parent / "tree"
    git(main, "clone", "--quiet", "--bare", ".", str(bare))
    git(bare, "worktree", "add", "--quiet", str(tree))
    assert root_of(tree) == bare


def test_a_submodule_counts_as_itself(main: Path) -> None:
    git(main, "submodule", "--quiet", "add", str(main / ".git"), "part")
    assert root_of(below(main / "part")) == main / "part"


@pytest.mark.parametrize("told", ["", "nonsense", "gitdir: /nowhere", "gitdir: \0"])
def test_a_pointer_that_makes_no_sense_leaves_the_folder_that_it_is_in(
    tmp_path: Path, told: str
) -> None:
    (tmp_path / ".git").write_text(told, "utf-8")
    assert root_of(below(tmp_path)) == tmp_path
    (tmp_path / ".git").write_bytes(b"gitdir: \xff")
    assert root_of(tmp_path) == tmp_path


def test_settings_of_one_user_do_not_go_into_the_home_or_what_is_anothers(
    main: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = below(main)
    with monkeypatch.context() as patched:
        patched.setenv("HOME", str(main))
        assert (root_of(folder), settings_folder(folder)) == (main, folder)
    (main / ".claude").mkdir()
    assert settings_folder(folder) == main
    if somebody_elses(main / ".claude") == main / ".claude":
        assert settings_folder(folder) == folder
