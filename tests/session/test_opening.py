"""Which peer a process is: its anchor, the handles it wishes for, what it tells others."""

from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp.config import Settings
from claudemesh_mcp.opening import set_up
from claudemesh_wire.address import is_handle
from claudemesh_wire.errors import Invalid, Unavailable

PEER = "p_" + "a" * 26


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop" / ".git").mkdir(parents=True)
    (tmp_path / "shop" / ".git" / "HEAD").write_text("ref: refs/heads/fix\n")
    return tmp_path / "shop"


@pytest.fixture
def settings(shop: Path) -> Settings:
    return Settings(project_dir=shop, host="desk")


def test_a_session_wishes_for_its_project_s_name(settings: Settings) -> None:
    assert set_up(settings, "claude").handles == ("shop", "shop-fix")


def test_a_name_given_at_the_start_comes_before_the_setting_s(shop: Path) -> None:
    settings = Settings(project_dir=shop, name="Bob")
    assert set_up(settings, "claude", name="ADA").handles == ("ada",)
    assert set_up(settings, "claude").handles == ("bob",)


def test_a_name_that_can_not_be_a_handle_is_refused(settings: Settings) -> None:
    with pytest.raises(Invalid) as caught:
        set_up(settings, "claude", name="ada\x1b[0m")
    assert caught.value.code == "bad_handle"


@pytest.mark.parametrize("user", ["Ada", "p_1", "東京", None])
def test_a_human_is_named_after_the_user(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, user: str | None
) -> None:
    def login() -> str:
        if user is None:
            raise KeyError("no passwd entry")
        return user

    monkeypatch.setattr("getpass.getuser", login)
    (handle,) = set_up(settings, "human").handles
    assert is_handle(handle)
    assert user != "Ada" or handle == "ada"


def test_a_session_says_what_it_is_and_where(settings: Settings, shop: Path) -> None:
    session = set_up(settings, "claude").session
    assert (session.type, session.host) == ("claude", "desk")
    assert (session.project, session.cwd) == ("shop", str(shop))


def test_a_claude_session_is_anchored_on_its_id(shop: Path) -> None:
    settings = Settings(project_dir=shop, session_id="0f3c")
    assert set_up(settings, "claude").anchor == "claude:0f3c"


def test_a_resume_id_comes_before_the_claude_session(shop: Path) -> None:
    settings = Settings(project_dir=shop, session_id="0f3c", resume="night")
    assert set_up(settings, "claude").anchor == "resume:night"
    assert set_up(settings, "claude", resume="day").anchor == "resume:day"
    assert set_up(settings, "claude", resume=PEER).anchor == PEER


@pytest.mark.parametrize("resume", ["p_", "p_x", PEER + "a", PEER.upper(), f"{PEER}\n"])
def test_what_only_looks_like_a_peer_id_is_a_resume_id(settings: Settings, resume: str) -> None:
    assert set_up(settings, "claude", resume=resume).anchor == f"resume:{resume}"


def test_without_any_anchor_each_start_is_a_new_peer(settings: Settings) -> None:
    first, second = set_up(settings, "sdk").anchor, set_up(settings, "sdk").anchor
    assert first != second
    assert first.startswith("once:")


def test_a_session_that_is_switched_off_takes_no_part(shop: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        set_up(Settings(project_dir=shop, enabled=False), "claude")
    assert (caught.value.code, bool(caught.value.hint)) == ("off", True)


def test_bytes_that_are_no_text_never_keep_a_session_from_starting(tmp_path: Path) -> None:
    settings = Settings(
        project_dir=tmp_path / "sh\udcffop", host="de\udcffsk", session_id="one\udcff"
    )
    setup = set_up(settings, "claude")
    for text in (setup.anchor, *setup.handles, setup.session.model_dump_json()):
        assert text.encode()


def test_long_names_are_cut_to_what_the_wire_takes(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["deep" * 50] * 10)
    session = set_up(Settings(project_dir=deep, host="h" * 300), "claude").session
    assert (len(session.project), len(session.cwd), len(session.host)) == (200, 1000, 80)


def test_a_folder_removed_from_under_the_process_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert set_up(Settings(), "claude").session.cwd == tmp_path.anchor


def test_the_present_folder_is_the_project_when_none_is_set(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop)
    assert set_up(Settings(), "claude").handles == ("shop", "shop-fix")


@pytest.mark.parametrize(
    ("session_type", "told", "reached"),
    [
        ("claude", {}, True),
        ("claude", {"entrypoint": "cli"}, True),
        ("claude", {"entrypoint": "sdk-cli"}, False),
        ("claude", {"attended": False}, False),
        ("claude", {"entrypoint": "sdk-cli", "multicast": True}, True),
        ("claude", {"multicast": False}, False),
        ("sdk", {"entrypoint": "sdk-cli"}, True),
        ("human", {"entrypoint": "sdk-cli"}, True),
    ],
)
def test_a_run_of_one_prompt_is_in_no_multicast_unless_it_is_launched_for_it(
    shop: Path, session_type: str, told: dict[str, Any], *, reached: bool
) -> None:
    setup = set_up(Settings(project_dir=shop, **told), session_type)
    assert setup.session.multicast is reached
