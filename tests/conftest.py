"""What every test is run with."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.claude.summary"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As when a shell starts the tests in the background; the programs they start would not be
    # interrupted either.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have two workers more than processors: tests also wait, for timers and other processes."""
    can_tell = hasattr(os, "sched_getaffinity")
    return (len(os.sched_getaffinity(0)) if can_tell else os.cpu_count() or 1) + 2


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
