"""What every test is run with."""

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


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
