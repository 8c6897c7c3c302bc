"""What every test is run with."""

import os
import signal
import sys
from collections.abc import Generator
from typing import Final

import pytest
from coverage import Coverage
from hypothesis import HealthCheck, settings

from tests.support.checkout import TESTS, import_all

pytest_plugins = ["tests.support.claude.summary"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As when a shell starts the tests in the background; the programs they start would not be
    # interrupted either.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

_UNMEASURED: Final = {TESTS, TESTS / "claude"}
_MEASURED_WHOLE: Final = {TESTS / "broker", TESTS / "wire"}
_MEASURED: Final[set[str]] = set()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have two workers more than processors: tests also wait, for timers and other processes."""
    can_tell = hasattr(os, "sched_getaffinity")
    return (len(os.sched_getaffinity(0)) if can_tell else os.cpu_count() or 1) + 2


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Find the tests without measuring coverage, for which all Python runs half as fast.

    What the product's modules do when they are imported is measured before.
    """
    measuring = sys.gettrace() if Coverage.current() else None
    if measuring is None:
        return (yield)
    import_all()
    sys.settrace(None)
    found = yield
    if not _has_workers(session.config):
        sys.settrace(measuring)
    return found


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Measure no coverage where it would tell nothing that it has not yet."""
    measuring = None if _is_measured(item) else sys.gettrace()
    if measuring is None:
        return (yield)
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(measuring)


def _is_measured(item: pytest.Item) -> bool:
    """Tell whether a test's run is to be measured.

    It is not where all of the product that runs is in other processes, or none is; where the test
    says so; and again for another of its cases, but where all branches have to be covered.
    """
    folder, test = item.path.parent, item.nodeid.partition("[")[0]
    if folder in _UNMEASURED or item.get_closest_marker("unmeasured"):
        return False
    if test in _MEASURED and folder not in _MEASURED_WHOLE:
        return False
    _MEASURED.add(test)
    return True


def _has_workers(config: pytest.Config) -> bool:
    """Tell whether other processes run the tests, and this one only hands them out."""
    return bool(config.getoption("numprocesses", None))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
