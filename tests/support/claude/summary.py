"""Says at the end of a run what was run with the real Claude Code, for the run's reader.

A pytest plugin, loaded by ``tests/conftest.py``. The fixture notes each test on its report, which
also comes over from the processes of a run side by side.
"""

from typing import Final

import pytest

from tests.support.claude.client import installed_version, is_required

_REQUESTS: Final = "requests of the real client"
_COUNTS: Final = pytest.StashKey[dict[str, int]]()


def note(item: pytest.Item, requests: int) -> None:
    """Note that a test has run with the real client, and how many requests its models received."""
    item.user_properties.append((_REQUESTS, requests))


@pytest.hookimpl
def pytest_configure(config: pytest.Config) -> None:
    """Count for this run."""
    config.stash[_COUNTS] = {}
    config.pluginmanager.register(_Counter(config.stash[_COUNTS]))


@pytest.hookimpl
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the counts."""
    counts = config.stash[_COUNTS]
    if counts or is_required():
        version = installed_version() or "none"
        told = f"{version}, tests {len(counts)}, requests captured {sum(counts.values())}"
        terminalreporter.write_line(f"claude code: {told}")


class _Counter:
    """Hears the reports of all tests."""

    def __init__(self, counts: dict[str, int]) -> None:
        self._counts = counts

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if report.when == "teardown" and name == _REQUESTS and isinstance(value, int):
                self._counts[report.nodeid] = value
