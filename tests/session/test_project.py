"""What a session works on: names from repositories, worktrees and folders, and handles of them."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_mcp.project import Project, as_text, find_project, host_label, wished_handle
from claudemesh_wire.address import is_handle
from claudemesh_wire.errors import Invalid
from tests.support.repository import git, repository


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A repository named shop with one commit on the branch main."""
    return repository(tmp_path / "Shop")


def test_a_repository_gives_its_name_and_its_branch(shop: Path) -> None:
    project = find_project(shop)
    assert project == Project("Shop", "main", shop)
    assert project.handles() == ["shop", "shop-main"]


def test_a_folder_deep_in_a_repository_belongs_to_it(shop: Path) -> None:
    inner = shop / "src" / "deep"
    inner.mkdir(parents=True)
    assert find_project(inner) == Project("Shop", "main", inner)


def test_a_branch_with_slashes_becomes_a_handle(shop: Path) -> None:
    git(shop, "switch", "--create", "feature/New_checkout")
    project = find_project(shop)
    assert project.variant == "feature/New_checkout"
    assert project.handles() == ["shop", "shop-feature-new_checkout"]


def test_a_detached_head_has_no_branch(shop: Path) -> None:
    git(shop, "switch", "--detach")
    project = find_project(shop)
    assert project == Project("Shop", "", shop)
    assert project.handles() == ["shop"]


def test_a_repository_without_a_commit_has_a_branch(tmp_path: Path) -> None:
    git(tmp_path, "init", "--initial-branch=trunk", "new")
    assert find_project(tmp_path / "new").variant == "trunk"


def test_a_repository_that_keeps_its_branches_elsewhere_has_none_to_show(shop: Path) -> None:
    (shop / ".git" / "HEAD").write_text("ref: refs/heads/.invalid\n")
    assert find_project(shop).handles() == ["shop"]


@pytest.mark.parametrize("head", ["", "garbage", "ref: refs/remotes/x", "\xff" * 9000])
def test_a_broken_head_is_no_branch_and_no_error(shop: Path, head: str) -> None:
    (shop / ".git" / "HEAD").write_text(head, encoding="latin-1")
    assert find_project(shop) == Project("Shop", "", shop)


def test_a_repository_without_a_head_is_a_project(tmp_path: Path) -> None:
    (tmp_path / "shop" / ".git").mkdir(parents=True)
    assert find_project(tmp_path / "shop") == Project("shop", "", tmp_path / "shop")


@pytest.mark.parametrize("place", ["../hotfix", "../deep/hotfix", "inside/hotfix"])
def test_a_worktree_is_named_after_its_repository_and_itself(shop: Path, place: str) -> None:
    git(shop, "worktree", "add", "-b", "fix", place)
    tree = Path(os.path.normpath(shop / place))
    project = find_project(tree)
    assert project == Project("Shop", "hotfix", tree)
    assert project.handles() == ["shop", "shop-hotfix"]


def test_a_worktree_with_relative_paths_is_found_out_too(shop: Path) -> None:
    git(shop, "worktree", "add", "-b", "fix", "hotfix")
    (shop / "hotfix" / ".git").write_text("gitdir: ../.git/worktrees/hotfix\n")
    assert find_project(shop / "hotfix") == Project("Shop", "hotfix", shop / "hotfix")


def test_a_worktree_of_a_bare_repository_has_the_repository_s_name(
    shop: Path, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "--bare", str(shop), "my.store.git")
    git(tmp_path / "my.store.git", "worktree", "add", "-b", "fix", str(tmp_path / "trees" / "one"))
    assert find_project(tmp_path / "trees" / "one").handles() == ["my.store", "my.store-one"]


def test_a_submodule_is_a_project_of_its_own(shop: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--initial-branch=main", "whole")
    git(tmp_path / "whole", "submodule", "add", "-b", "main", str(shop), "parts/till")
    assert find_project(tmp_path / "whole" / "parts" / "till").handles() == ["till", "till-main"]


def test_a_submodule_in_a_folder_called_worktrees_is_no_worktree(
    shop: Path, tmp_path: Path
) -> None:
    git(tmp_path, "init", "--initial-branch=main", "whole")
    git(tmp_path / "whole", "submodule", "add", "-b", "main", str(shop), "worktrees/till")
    assert find_project(tmp_path / "whole" / "worktrees" / "till").name == "till"


def test_a_worktree_of_a_submodule_belongs_to_the_submodule(shop: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--initial-branch=main", "whole")
    git(tmp_path / "whole", "submodule", "add", "-b", "main", str(shop), "till")
    git(tmp_path / "whole" / "till", "worktree", "add", "-b", "fix", str(tmp_path / "one"))
    assert find_project(tmp_path / "one").handles() == ["till", "till-one"]


@pytest.mark.parametrize("content", ["", "gitdir: /nowhere/at/all\n", "junk", "gitdir: \0\n"])
def test_a_git_file_that_points_nowhere_leaves_the_folder_s_name(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / ".git").write_text(content)
    assert find_project(tmp_path / "shop") == Project("shop", "", tmp_path / "shop")


def test_a_folder_outside_of_git_is_its_own_project(tmp_path: Path) -> None:
    folder = tmp_path / "Notes & Plans"
    folder.mkdir()
    project = find_project(folder)
    assert project == Project("Notes & Plans", "", folder)
    assert project.handles() == ["notes-plans"]


@pytest.mark.parametrize("way", ["/", "/.."])
def test_the_root_folder_is_a_project_too(way: str) -> None:
    assert find_project(Path(way)).handles() == ["peer"]


def test_a_way_with_dots_is_walked_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    assert find_project(tmp_path / "shop" / ".." / "shop" / ".").name == "shop"


def test_a_relative_way_begins_where_the_process_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    assert find_project(Path()) == Project("shop", "", tmp_path / "shop")


def test_a_folder_that_is_gone_still_has_a_name(tmp_path: Path) -> None:
    assert find_project(tmp_path / "gone") == Project("gone", "", tmp_path / "gone")


def test_a_name_that_is_no_text_is_shown_as_text(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/sh\xff\xfep"))
    folder.mkdir()
    project = find_project(folder)
    assert project.name == "sh??p"
    assert str(project.cwd).encode() == str(tmp_path).encode() + b"/sh??p"
    assert project.handles() == ["sh-p"]


@pytest.mark.parametrize(
    ("name", "handle"),
    [
        ("東京", "peer"),
        ("Ünïcode", "n-code"),
        ("mesh_tools", "mesh-tools"),
        ("p_test", "p-test"),
        ("...", "peer"),
        ("a" * 99, "a" * 40),
        ("-dash-", "dash"),
        ("UPPER.case", "upper.case"),
        ("\x1b[31mred", "31mred"),
    ],
)
def test_strange_names_become_handles(name: str, handle: str) -> None:
    assert Project(name, "", Path("/")).handles() == [handle]


@given(name=st.text(max_size=60), variant=st.text(max_size=60))
def test_any_project_has_handles_that_a_broker_takes(name: str, variant: str) -> None:
    handles = Project(name, variant, Path("/")).handles()
    assert 1 <= len(handles) <= 2
    assert len(set(handles)) == len(handles)
    assert all(is_handle(handle) for handle in handles)


@pytest.mark.parametrize(
    ("name", "handle"), [("ada", "ada"), (" Ada ", "ada"), ("a.b-c_d", "a.b-c_d")]
)
def test_a_wished_name_is_taken_as_a_handle(name: str, handle: str) -> None:
    assert wished_handle(name) == handle


@pytest.mark.parametrize(
    "name", ["", " ", "ada lovelace", "p_ada", "a" * 41, "a\nb", "a\x00b", "á"]
)
def test_a_name_that_can_not_be_a_handle_is_refused_with_one_that_can(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        wished_handle(name)
    assert caught.value.code == "bad_handle"
    assert caught.value.hint


def test_the_host_is_shown_without_its_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, shown in (("desk.example.org", "desk"), ("", "unknown"), ("d\udcff", "d?")):
        monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
        assert host_label() == shown


@given(st.text(st.characters(), max_size=40))
def test_text_stays_and_what_is_none_becomes_text(name: str) -> None:
    shown = as_text(name)
    shown.encode()
    assert len(shown) == len(name)
    try:
        name.encode()
    except UnicodeEncodeError:
        assert shown != name
    else:
        assert shown == name
