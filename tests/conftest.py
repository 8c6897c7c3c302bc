"""What every test is run with."""

import signal

import pytest

pytest_plugins = ["tests.support.claude.summary"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As when a shell starts the tests in the background; the programs they start would not be
    # interrupted either.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
