"""What a run says that lacks the real client: a reason, and a failure where the client is required.

A run of its own is started for that, in which no program is found by its name, and so no tmux.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from claudemesh_mcp.config import broker_environment
from tests.support.checkout import ROOT

TEST = "tests/claude/test_print.py::test_without_tool_search_all_tools_are_loaded"


@pytest.mark.parametrize(
    ("required", "code", "outcome"), [("", 0, r"SKIPPED .*"), ("1", 1, r"E +Failed: .*")]
)
def test_without_the_client_a_run_says_why_and_fails_where_it_must(
    tmp_path: Path, required: str, code: int, outcome: str
) -> None:
    lacking = {"PATH": str(tmp_path), "CLAUDEMESH_REQUIRE_CLAUDE": required}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", TEST],
        cwd=ROOT,
        env=broker_environment() | lacking,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert re.search(rf"^{outcome} is not installed", done.stdout, re.MULTILINE)
    said = re.search(r"^claude code: \S+, tests 0, requests captured 0$", done.stdout, re.MULTILINE)
    assert bool(said) is bool(required)
