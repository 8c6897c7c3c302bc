"""The data folder of a broker that has ended, with everything that a broker makes for itself.

The tests of backup, restore and check look after such a folder.
"""

from functools import partial
from pathlib import Path
from typing import Final

import anyio

from claudemesh_broker import embedded
from claudemesh_broker.app import Opening, open_broker
from claudemesh_broker.binding import Binding, Tls
from claudemesh_broker.config import BrokerSettings
from claudemesh_broker.tls import certificate_of
from claudemesh_wire.keys import SigningKey
from tests.support.broker import TOKEN, settings

MADE: Final = frozenset(
    {"broker.sqlite3", "broker.key", "broker-tls.crt", "broker-tls.key", "admin.secret"}
)


def broker_data(folder: Path) -> Path:
    """Have a broker made in a folder and end; gives its data folder."""
    told = settings(folder)
    key = embedded.load_signing_key(told.data)
    certificate_of(told.data, Binding("127.0.0.1", Tls.AUTO))
    embedded.load_admin_secret(told.data)
    anyio.run(partial(_open_once, told, key))
    return told.data


async def _open_once(told: BrokerSettings, key: SigningKey) -> None:
    async with open_broker(Opening(told, key, TOKEN, list[BaseException]().append)):
        pass


def content(folder: Path) -> dict[str, bytes]:
    """Give what a broker made that is in a folder."""
    return {name: (folder / name).read_bytes() for name in MADE if (folder / name).exists()}
