"""Benches and campaigns still run: each at its smallest, for the shape of what it prints."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp.config import broker_environment
from tests.support.claude.client import need_client

ROOT = Path(__file__).parents[2]
LIMIT_S = 110
LATENCIES = {"p50", "p95", "p99"}
SPREAD = {"p50", "max"}
ONE_MESSAGE = ("--seed", "656")
"""To an idle session with all routes; nobody is killed."""


def printed(folder: Path, program: str, *words: str) -> Any:
    """Run a program to its end on a throw-away place of its own; gives its last line."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "broker")))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / program), *words],
        env=broker_environment() | {"PYTHONPATH": path, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_load_of_real_clients(tmp_path: Path) -> None:
    told = printed(tmp_path, "bench/load.py", "3", "3", "--processes", "1")
    assert told.keys() == {
        *("peers", "messages", "window", "delivered", "lost", "pending", "seconds"),
        *("messages_per_s", "accepted_ms", "opened_ms", "clients_cpu_s"),
        *("broker_peak_mb", "broker_cpu_s"),
    }
    assert (told["peers"], told["messages"]) == (3, 9)
    assert told["accepted_ms"].keys() == told["opened_ms"].keys() == LATENCIES


def test_the_broker_alone(tmp_path: Path) -> None:
    # Fewer take no tick of the processor's clock, by which the result is divided.
    told = printed(tmp_path, "bench/broker_only.py", "2", "100")
    assert told.keys() == {
        *("senders", "messages", "window", "delivered", "repeated", "lost", "seconds"),
        *("messages_per_s", "messages_per_broker_cpu_s", "accepted_ms", "broker_cpu_s"),
        *("client_cpu_s", "broker_rss_mb"),
    }
    assert (told["messages"], told["accepted_ms"].keys()) == (200, LATENCIES)


def test_the_cost_of_tls(tmp_path: Path) -> None:
    words = ("1", "200", "--rounds", "1", "--connects", "1")
    told = printed(tmp_path, "bench/tls.py", *words)
    assert told.keys() == {"off", "auto"}
    for mode in told.values():
        assert mode.keys() == {
            *("connect_ms", "messages_per_s", "broker_cpu_ms_per_message", "broker_rss_mb"),
            *("lost", "repeated", "rounds"),
        }


def test_the_cost_of_a_session(tmp_path: Path) -> None:
    words = ("--spawns", "1", "--sessions", "1", "--idle", "0")
    told = printed(tmp_path, "bench/session.py", *words)
    weighed = {f"{when}_{what}_mib" for when in ("idle", "used") for what in ("rss", "pss")}
    assert told.keys() == {
        *("initialize_ms", "first_tool_ms", "sessions", "broker_rss_mib", "broker_pss_mib"),
        *weighed,
    }
    assert told["initialize_ms"].keys() == told["first_tool_ms"].keys() == SPREAD
    assert all(told[name].keys() == SPREAD | {"total"} for name in weighed)


@pytest.mark.parametrize("words", [(), ("--tls",)], ids=["one home", "two homes"])
def test_a_campaign_of_kills(tmp_path: Path, words: tuple[str, ...]) -> None:
    few = ("--sessions", "2", "--rate", "20", "--broker-kills", "1", "--session-kills", "1")
    told = printed(tmp_path, "campaigns/kill.py", *few, "--pause", "0.5", *words)
    assert told.keys() == {
        *("seed", "homes", "sessions", "broker_kills", "session_kills", "seconds", "refusals"),
        *("acknowledged", "lost", "unmarked_repeats", "order_violations", "messages_per_s"),
        "marked_repeats",
    }
    assert told["homes"] == 1 + bool(words)


def test_a_campaign_of_killed_providers(tmp_path: Path) -> None:
    few = ("--callers", "1", "--kills", "1", "--server-kills", "0", "--broker-kills", "0")
    told = printed(tmp_path, "campaigns/providers.py", *few, "--pause", "0.2")
    assert told.keys() == {
        *("seed", "callers", "kills", "kills_in_mid_call", "calls", "outcomes", "seconds"),
        *("unknown_and_run", "moved", "repeated", "unfounded", "denied", "hung", "late"),
        *("gone", "left", "learned_ms", "away_ms", "back_ms"),
    }
    assert sum(told["kills"].values()) == 1
    assert told["away_ms"].keys() == {"n", "p50", "p95", "max"}


def test_a_campaign_of_mixed_runs_with_the_real_client(tmp_path: Path) -> None:
    need_client()
    told = printed(tmp_path, "campaigns/routes.py", "--runs", "1", "--jobs", "1", *ONE_MESSAGE)
    assert told.keys() == {
        *("runs", "seed", "messages", "seen", "lost", "unmarked", "false_seen", "marked"),
        *("broken", "left", "kills", "ms", "ms_with_kills", "seconds"),
    }
    assert (told["runs"], told["messages"]) == (1, 1)
    ((times,),) = [route.values() for route in told["ms"].values()]
    assert times.keys() == {"n", "p50", "p95"}
