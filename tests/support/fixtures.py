"""A broker in this process, and the peers that most of its tests need."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.broker import MemoryBroker, a_broker
from tests.support.people import Device, Mesh, Person
from tests.support.rawpeer import RawPeer, join


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[MemoryBroker]:
    async with a_broker(tmp_path) as broker:
        yield broker


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(Person("ada"))


@pytest.fixture
async def ada(broker: MemoryBroker, mesh: Mesh) -> RawPeer:
    return await join(broker, Device(mesh, mesh.founder, "ada"))


@pytest.fixture
async def bob(broker: MemoryBroker, mesh: Mesh, ada: RawPeer) -> RawPeer:
    """Give another peer of ada's member."""
    assert ada
    return await join(broker, Device(mesh, mesh.founder, "bob"))
