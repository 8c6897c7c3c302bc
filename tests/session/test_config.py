"""Settings: which source wins, and what a mistake in any of them is told."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from claudemesh_mcp.config import (
    RULES,
    Paths,
    Settings,
    broker_environment,
    keep_plugins_out,
)
from claudemesh_wire.errors import Invalid


def load(home: Path, text: str = "", **environ: str) -> Settings:
    if text:
        (home / "config.toml").write_text(text, "utf-8")
    return Settings.load(environ={"CLAUDEMESH_HOME": str(home), **environ})


def refused(home: Path, text: str) -> Invalid:
    with pytest.raises(Invalid) as caught:
        load(home, text)
    assert caught.value.code == "config_invalid"
    assert str(home / "config.toml") in caught.value.reason
    assert caught.value.hint
    return caught.value


def test_every_setting_has_a_rule_and_every_rule_a_setting() -> None:
    assert [field.name for field in fields(Settings)] == list(RULES)


def test_nothing_given_means_the_defaults(tmp_path: Path) -> None:
    settings = Settings.load(environ={"HOME": str(tmp_path)})
    assert settings == Settings()
    assert not settings.off
    assert settings.keyring


def test_a_flag_wins_over_a_variable_and_that_over_the_file(tmp_path: Path) -> None:
    text = 'name = "file"\nlog_level = "error"\nkey_file = "/file"\n'
    (tmp_path / "config.toml").write_text(text)
    environ = {
        "CLAUDEMESH_HOME": str(tmp_path),
        "CLAUDEMESH_NAME": "variable",
        "CLAUDEMESH_LOG_LEVEL": "warning",
    }
    settings = Settings.load({"name": "flag", "resume": None}, environ)
    assert (settings.name, settings.log_level, settings.key_file) == (
        "flag",
        "warning",
        Path("/file"),
    )


def test_the_home_flag_decides_which_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('name = "ada"')
    settings = Settings.load({"home": tmp_path}, {"CLAUDEMESH_HOME": "/nowhere"})
    assert settings.name == "ada"
    assert settings.home == tmp_path


def test_the_client_tells_session_and_project(tmp_path: Path) -> None:
    settings = load(tmp_path, CLAUDE_CODE_SESSION_ID="s-1", CLAUDE_PROJECT_DIR="/src/app")
    assert settings.session_id == "s-1"
    assert settings.project_dir == Path("/src/app")


@pytest.mark.parametrize("word", ["off", "OFF", "0", "no", "false"])
def test_claudemesh_off_disables(tmp_path: Path, word: str) -> None:
    assert load(tmp_path, CLAUDEMESH=word).off


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert load(tmp_path, CLAUDEMESH="", CLAUDEMESH_NAME="") == load(tmp_path)


def test_a_relative_home_is_made_absolute() -> None:
    settings = Settings.load(environ={"CLAUDEMESH_HOME": "some/where"})
    assert settings.home == Path.cwd() / "some/where"


def test_a_home_holds_all_state(tmp_path: Path) -> None:
    paths = load(tmp_path).paths()
    assert paths.config == tmp_path
    assert [paths.broker, paths.sessions, paths.run, paths.keys, paths.meshes, paths.logs] == [
        tmp_path / name for name in ("broker", "sessions", "run", "keys", "meshes", "logs")
    ]


def test_a_home_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert Paths.of(tmp_path / "link").data == tmp_path / "disk"


def test_without_a_home_the_platform_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    paths = Paths.of(None)
    for folder in (paths.data, paths.config, paths.cache, paths.logs):
        assert folder.is_relative_to(tmp_path)
        assert "claudemesh" in folder.parts
    assert paths.run == paths.data / "run"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLAUDEMESH", "perhaps"),
        ("CLAUDEMESH_NAME", "a\nb"),
        ("CLAUDEMESH_LOG_LEVEL", "loud"),
        ("CLAUDEMESH_PING_INTERVAL_S", "0"),
        ("CLAUDEMESH_PING_INTERVAL_S", "nan"),
        ("CLAUDEMESH_PING_INTERVAL_S", "often"),
        ("CLAUDEMESH_KEYRING", "sometimes"),
        ("CLAUDEMESH_KEY_FILE", "~nobody-of-that-name/key"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(Invalid) as caught:
        load(tmp_path, **{name: value})
    assert caught.value.code == "config_invalid"
    assert name in caught.value.reason


def test_an_unknown_flag_is_refused_with_the_likely_one() -> None:
    with pytest.raises(Invalid) as caught:
        Settings.load({"nmae": "ada"}, {})
    assert "name" in caught.value.hint


def test_a_wrong_flag_is_named() -> None:
    with pytest.raises(Invalid) as caught:
        Settings.load({"log_level": 7}, {})
    assert "--log-level" in caught.value.reason


def test_broken_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    assert "line 2" in refused(tmp_path, 'name = "ada"\nkeyring = = on\n').reason


def test_a_wrong_type_is_refused_with_its_line(tmp_path: Path) -> None:
    assert "line 3" in refused(tmp_path, '# mine\n\nkeyring = "often"\n').reason


def test_an_unknown_key_is_refused_with_its_line_and_the_likely_one(tmp_path: Path) -> None:
    error = refused(tmp_path, 'name = "ada"\nkey_fiel = "/k"\n')
    assert "line 2" in error.reason
    assert "key_file" in error.hint


def test_an_unlikely_key_is_told_all_that_exist(tmp_path: Path) -> None:
    assert "log_level" in refused(tmp_path, "zzzzzz = 1").hint


def test_an_unknown_table_is_refused_with_its_line(tmp_path: Path) -> None:
    assert "line 2" in refused(tmp_path, 'name = "ada"\n[sesion]\na = 1\n').reason


def test_what_belongs_to_one_process_is_not_taken_from_the_file(tmp_path: Path) -> None:
    error = refused(tmp_path, 'session_id = "s-1"')
    assert "CLAUDE_CODE_SESSION_ID" in error.hint


def test_a_file_that_is_not_text_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b'name = "ada"\nhost = "\xff"\n')
    with pytest.raises(Invalid) as caught:
        load(tmp_path)
    assert "line 2" in caught.value.reason


def test_a_config_file_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(Invalid) as caught:
        load(tmp_path)
    assert caught.value.code == "config_invalid"


def test_a_background_broker_inherits_no_secret_and_no_relative_path() -> None:
    environ = {
        "ANTHROPIC_API_KEY": "k",
        "CLAUDE_CODE_SESSION_ID": "s",
        "GITHUB_TOKEN": "t",
        "HOME": "/home/ada",
        "CLAUDEMESH_BROKER_IDLE_S": "5",
        "PYTHONPATH": "here:/there",
    }
    assert broker_environment(environ) == {
        "HOME": "/home/ada",
        "CLAUDEMESH_BROKER_IDLE_S": "5",
        "PYTHONPATH": f"{Path.cwd() / 'here'}:/there",
    }


def test_no_plugin_is_shown_the_messages_unless_a_user_said_so() -> None:
    silent: dict[str, str] = {}
    keep_plugins_out(silent)
    assert silent == {"PYDANTIC_DISABLE_PLUGINS": "__all__"}
    chosen = {"PYDANTIC_DISABLE_PLUGINS": "logfire-plugin"}
    keep_plugins_out(chosen)
    assert chosen == {"PYDANTIC_DISABLE_PLUGINS": "logfire-plugin"}


def test_loading_settings_of_a_home_imports_nothing_slow(tmp_path: Path) -> None:
    program = (
        "import sys; before = set(sys.modules); "
        "from claudemesh_mcp.config import Settings; Settings.load(); "
        "slow = {'anyio', 'cryptography', 'keyring', 'platformdirs', 'pydantic', 'tomllib'}; "
        "print(sorted(slow & (set(sys.modules) - before)))"
    )
    environ = broker_environment() | {"CLAUDEMESH_HOME": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def project(folder: Path, text: str) -> Path:
    """A repository whose own file says something, and a folder in it."""
    (folder / "shop" / ".git").mkdir(parents=True)
    (folder / "shop" / ".claudemesh.toml").write_text(text)
    inner = folder / "shop" / "src" / "deep"
    inner.mkdir(parents=True)
    return inner


def in_project(folder: Path, **environ: str) -> Settings:
    told = {"CLAUDEMESH_HOME": str(folder / "home"), "CLAUDE_PROJECT_DIR": str(folder), **environ}
    return Settings.load(environ=told)


def test_a_project_says_which_mesh_its_sessions_are_in(tmp_path: Path) -> None:
    inner = project(tmp_path, 'mesh = "team"\nname = "shopkeeper"\n')
    settings = in_project(inner)
    assert (settings.mesh, settings.name, settings.off) == ("team", "shopkeeper", False)
    told = in_project(inner, CLAUDEMESH_MESH="spare", CLAUDEMESH_NAME="ada")
    assert (told.mesh, told.name) == ("spare", "ada")


def test_a_project_outweighs_the_users_file(tmp_path: Path) -> None:
    inner = project(tmp_path, 'mesh = "team"\n')
    home = inner / "home"
    home.mkdir()
    (home / "config.toml").write_text('mesh = "spare"\nname = "ada"\n')
    settings = in_project(inner)
    assert (settings.mesh, settings.name) == ("team", "ada")


def test_a_project_may_keep_out_of_all_meshes(tmp_path: Path) -> None:
    assert in_project(project(tmp_path, "enabled = false\n")).off


def test_a_file_above_the_repository_is_not_the_projects(tmp_path: Path) -> None:
    inner = project(tmp_path, "")
    (tmp_path / ".claudemesh.toml").write_text('mesh = "team"\n')
    (tmp_path / "shop" / ".claudemesh.toml").unlink()
    assert in_project(inner).mesh is None


@pytest.mark.parametrize("text", ['home = "/tmp"', "mesh = 7", "mesh = ", 'log_level = "debug"'])
def test_a_project_that_says_what_it_may_not_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        in_project(project(tmp_path, text))
    assert caught.value.code == "config_invalid"
    assert ".claudemesh.toml" in caught.value.reason


def test_how_messages_come_may_stand_in_a_project_s_file_behind_variable_and_flag(
    tmp_path: Path,
) -> None:
    project = tmp_path / "shop"
    project.mkdir()
    (project / ".claudemesh.toml").write_text('messages = "inbox"\n')
    environ = {"CLAUDEMESH_HOME": str(tmp_path), "CLAUDE_PROJECT_DIR": str(project)}
    assert Settings.load(environ=environ).messages == "inbox"
    environ["CLAUDEMESH_MESSAGES"] = "off"
    assert Settings.load(environ=environ).messages == "off"
    assert Settings.load({"messages": "push"}, environ).messages == "push"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CLAUDEMESH_MESSAGES", "sometimes"), ("CLAUDEMESH_TOOLSETS", "core,,")],
)
def test_a_setting_of_what_a_model_is_told_that_makes_no_sense_is_refused(
    tmp_path: Path, variable: str, value: str
) -> None:
    with pytest.raises(Invalid) as caught:
        load(tmp_path, **{variable: value})
    assert caught.value.code == "config_invalid"
    assert variable in caught.value.reason


def test_sets_of_tools_are_names_with_commas_between_them(tmp_path: Path) -> None:
    assert load(tmp_path, CLAUDEMESH_TOOLSETS="Core, groups").toolsets == ("core", "groups")
    assert load(tmp_path, 'toolsets = ["core"]\n').toolsets == ("core",)


@pytest.mark.parametrize(
    ("entrypoint", "attended", "is_headless", "is_attended"),
    [
        ("", "", False, True),
        ("cli", "1", False, True),
        ("sdk-cli", "0", True, False),
        ("sdk-cli", "", True, False),
        ("cli", "0", True, False),
        ("claude-vscode", "maybe", False, False),
    ],
)
def test_a_run_of_one_prompt_is_told_by_what_the_client_says_of_it(
    tmp_path: Path, entrypoint: str, attended: str, *, is_headless: bool, is_attended: bool
) -> None:
    settings = load(
        tmp_path, CLAUDE_CODE_ENTRYPOINT=entrypoint, CLAUDE_CODE_SESSION_ATTENDED=attended
    )
    assert (settings.is_headless, settings.is_attended) == (is_headless, is_attended)
