"""Servers as people have them, with calls of every tool: what tests compare with the direct answer.

Each call is made twice in the same world, once directly and once through what is tested:
``fresh`` makes that world anew, at the same place.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from claudemesh_mcp.hosting.launch import Launch
from tests.support.backends import found

Words = dict[str, Any]
_PINNED_S: Final = 1_700_000_000
_ONCE: Final = re.compile(
    r"\d{4}-\d\d-\d\d|\d{1,2}:\d\d:\d\d(?: [AP]M)?|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
)
_DATED: Final = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "a"), ("EMAIL", "a@b"), ("DATE", f"{_PINNED_S} +0000"))
}


class Call(NamedTuple):
    """One request to a server, and by what code the mesh refuses it without asking the server."""

    method: str
    params: Words
    refused: str = ""


@dataclass(frozen=True)
class Real:
    """A server and what it is asked.

    Args:
        launch: Says how it is started, for the folder that it works in.
        calls: Gives every call, for that folder, in their order.
        prepare: Fills that folder, which is empty.
        is_stateless: Whether it is of the 2026 era.
    """

    launch: Callable[[Path], Launch]
    calls: Callable[[Path], list[Call]]
    prepare: Callable[[Path], None] = lambda _: None
    is_stateless: bool = False

    def fresh(self, folder: Path) -> Path:
        """Make the folder anew, and give it."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.prepare(folder)
        return folder


def tool(name: str, /, **arguments: Any) -> Call:
    """Write a call of a tool."""
    return Call("tools/call", {"name": name, "arguments": arguments})


def wrong(name: str, /, **arguments: Any) -> Call:
    """Write a call of a tool whose schema does not allow these arguments."""
    return tool(name, **arguments)._replace(refused="bad_arguments")


def unknown(name: str) -> Call:
    """Write a call of a tool that there is not."""
    return tool(name)._replace(refused="unknown_tool")


def timeless(answer: Words) -> Words:
    """Take out what a clock or chance says: no two calls are alike in that."""
    told: Words = json.loads(_ONCE.sub("<once>", json.dumps(answer)))
    return told


def _read(uri: str) -> Call:
    return Call("resources/read", {"uri": uri})


def _prompt(name: str, /, **arguments: Any) -> Call:
    return Call("prompts/get", {"name": name, "arguments": arguments})


def _everything_calls(_: Path) -> list[Call]:
    return [
        tool("echo", message="hello ☃"),
        wrong("echo"),
        tool("get-annotated-message", messageType="error", includeImage=True),
        tool("get-annotated-message", messageType="success"),
        wrong("get-annotated-message", messageType="no such"),
        tool("get-env"),
        tool("get-resource-links", count=3),
        tool("get-resource-reference", resourceType="Text", resourceId=2),
        tool("get-structured-content", location="New York"),
        tool("get-sum", a=1, b=2),
        wrong("get-sum", a="one"),
        tool("get-tiny-image"),
        tool(
            "gzip-file-as-resource",
            name="a.gz",
            data="data:text/plain,hello",
            outputType="resource",
        ),
        tool("toggle-subscriber-updates"),
        tool("toggle-simulated-logging"),
        tool("trigger-elicitation-request"),
        tool("trigger-url-elicitation", url="https://example.org/", message="Look."),
        tool("simulate-research-query", topic="meshes"),
        tool("trigger-long-running-operation", duration=0.1, steps=2),
        unknown("no-such-tool"),
        _prompt("simple-prompt"),
        _prompt("args-prompt", city="Paris", state="Texas"),
        _prompt("completable-prompt", department="Engineering", name="Alice"),
        _prompt("resource-prompt", resourceType="Text", resourceId="1"),
        _prompt("no-such-prompt"),
        _read("demo://resource/static/document/architecture.md"),
        _read("no://such"),
    ]


def _filesystem_prepare(folder: Path) -> None:
    (folder / "ünïcode.txt").write_text("one\ntwo ☃\nthree\n", "utf-8")
    (folder / "image.png").write_bytes(bytes.fromhex("89504e470d0a1a0a") + bytes(64))
    (folder / "deep" / "er").mkdir(parents=True)
    for path in folder.rglob("*"):
        os.utime(path, (_PINNED_S, _PINNED_S))


def _filesystem_calls(folder: Path) -> list[Call]:
    def at(name: str) -> str:
        return str(folder / name)

    edits = [{"oldText": "two", "newText": "2"}]
    return [
        tool("list_allowed_directories"),
        tool("read_file", path=at("ünïcode.txt")),
        tool("read_text_file", path=at("ünïcode.txt"), head=1),
        tool("read_text_file", path=at("ünïcode.txt"), head=1, tail=1),
        tool("read_media_file", path=at("image.png")),
        tool("read_multiple_files", paths=[at("ünïcode.txt"), at("nowhere")]),
        wrong("read_multiple_files", paths=[]),
        tool("list_directory", path=at("")),
        tool("list_directory_with_sizes", path=at(""), sortBy="size"),
        tool("directory_tree", path=at("")),
        tool("search_files", path=at(""), pattern="**/*.txt"),
        tool("write_file", path=at("new.txt"), content="line\n" * 1000),
        tool("edit_file", path=at("ünïcode.txt"), edits=edits, dryRun=True),
        tool("edit_file", path=at("ünïcode.txt"), edits=edits),
        tool("edit_file", path=at("ünïcode.txt"), edits=edits),
        tool("create_directory", path=at("made/here")),
        tool("move_file", source=at("new.txt"), destination=at("made/here/moved.txt")),
        tool("move_file", source=at("new.txt"), destination=at("made")),
        tool("get_file_info", path=at("deep")),
        tool("get_file_info", path=at("nowhere")),
        tool("read_file", path="/etc/hostname"),
    ]


def _memory_calls(_: Path) -> list[Call]:
    ada = {"name": "ada", "entityType": "person", "observations": ["writes ☃"]}
    bob = {"name": "bob", "entityType": "person", "observations": []}
    knows = {"from": "ada", "to": "bob", "relationType": "knows"}
    return [
        tool("create_entities", entities=[ada, bob]),
        tool("create_relations", relations=[knows]),
        tool("add_observations", observations=[{"entityName": "bob", "contents": ["listens"]}]),
        tool("add_observations", observations=[{"entityName": "cleo", "contents": ["x"]}]),
        tool("search_nodes", query="writes"),
        tool("open_nodes", names=["bob", "cleo"]),
        tool("read_graph"),
        _read("memory://knowledge-graph"),
        tool("delete_observations", deletions=[{"entityName": "bob", "observations": ["listens"]}]),
        tool("delete_relations", relations=[knows]),
        tool("delete_entities", entityNames=["ada"]),
        wrong("create_entities", entities=[{"name": 1}]),
        tool("read_graph"),
    ]


def _sqlite_calls(_: Path) -> list[Call]:
    return [
        tool("create_table", query="CREATE TABLE cities (name TEXT, people INTEGER)"),
        tool("create_table", query="SELECT 1"),
        tool("write_query", query="INSERT INTO cities VALUES ('Köln', 1084831), ('Bonn', 335789)"),
        tool("write_query", query="SELECT 1"),
        tool("read_query", query="SELECT name, people FROM cities ORDER BY people"),
        tool("read_query", query="SELECT nothing"),
        tool("list_tables"),
        tool("describe_table", table_name="cities"),
        tool("append_insight", insight="Köln is larger ☃"),
        _read("memo://insights"),
        _prompt("mcp-demo", topic="cities"),
    ]


def _time_calls(_: Path) -> list[Call]:
    zones = {"source_timezone": "Europe/Berlin", "target_timezone": "Asia/Tokyo"}
    return [
        tool("convert_time", **zones, time="16:30"),
        tool("convert_time", **zones, time="soon"),
        tool("get_current_time", timezone="Asia/Tokyo"),
        tool("get_current_time", timezone="No/Where"),
        wrong("get_current_time"),
        unknown("no_such_tool"),
    ]


def _git_prepare(folder: Path) -> None:
    for command in (
        ["init", "--quiet", "--initial-branch", "main"],
        ["commit", "--quiet", "--allow-empty", "-m", "first"],
    ):
        environment = {**found.environment(), **_DATED}
        subprocess.run(["git", "-C", str(folder), *command], check=True, env=environment)
    (folder / "ünïcode.txt").write_text("☃\n", "utf-8")


def _git_calls(folder: Path) -> list[Call]:
    here = {"repo_path": str(folder)}
    return [
        tool("git_status", **here),
        tool("git_add", **here, files=["ünïcode.txt"]),
        tool("git_diff_staged", **here),
        tool("git_reset", **here),
        tool("git_diff_unstaged", **here),
        tool("git_add", **here, files=["nothing"]),
        tool("git_add", **here, files=["ünïcode.txt"]),
        tool("git_commit", **here, message="second ☃"),
        tool("git_create_branch", **here, branch_name="side"),
        tool("git_checkout", **here, branch_name="side"),
        tool("git_diff", **here, target="main"),
        tool("git_log", **here, max_count=3),
        tool("git_show", **here, revision="HEAD"),
        tool("git_branch", **here, branch_type="local"),
        tool("git_show", **here, revision="nowhere"),
        tool("git_status", repo_path="/"),
    ]


REAL: Final = {
    "everything": Real(lambda _: found.everything(), _everything_calls),
    "filesystem": Real(
        lambda folder: found.npm("server-filesystem", str(folder)),
        _filesystem_calls,
        _filesystem_prepare,
    ),
    "memory": Real(
        lambda folder: found.npm("server-memory", MEMORY_FILE_PATH=str(folder / "memory.json")),
        _memory_calls,
    ),
    "sqlite": Real(lambda folder: found.sqlite(folder / "cities.db"), _sqlite_calls),
    "time": Real(
        lambda _: found.python("mcp_server_time", "--local-timezone", "UTC"),
        _time_calls,
        is_stateless=True,
    ),
    "git": Real(
        lambda folder: found.python("mcp_server_git", "--repository", str(folder), **_DATED),
        _git_calls,
        _git_prepare,
        is_stateless=True,
    ),
}

EACH: Final = pytest.mark.parametrize("name", sorted(REAL))
