"""What stands around handlers: mistakes of declaration fail at once, strangers get nothing."""

from pathlib import Path
from typing import Any

import pytest

from claudemesh_broker import service
from claudemesh_broker.service import Context, Service, serves
from claudemesh_wire.errors import MeshError
from claudemesh_wire.meshes import AskMesh, LogEntries, MeshFacts, ReadLog
from claudemesh_wire.presence import Departed
from tests.support.broker import a_broker
from tests.support.people import Device, Mesh, Person
from tests.support.rawpeer import join


@pytest.fixture(autouse=True)
def _handlers_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "HANDLERS", {})


async def good(context: Context, request: ReadLog) -> LogEntries: ...
async def other(context: Context, request: ReadLog) -> LogEntries: ...
async def wrong_reply(context: Context, request: AskMesh) -> Departed: ...
async def no_reply(context: Context, request: AskMesh): ...  # type: ignore[no-untyped-def] # noqa: ANN201 - the case
async def no_request(context: Context) -> MeshFacts: ...
async def no_context(request: AskMesh, context: Context) -> MeshFacts: ...
async def not_a_request(context: Context, request: Departed) -> MeshFacts: ...


def test_a_signature_is_the_registration() -> None:
    assert serves(good) is good
    assert service.HANDLERS[ReadLog] is good


@pytest.mark.parametrize("handler", [wrong_reply, no_reply, no_request, no_context, not_a_request])
def test_a_signature_that_does_not_fit_fails_at_once(handler: Any) -> None:
    with pytest.raises(TypeError, match=handler.__name__):
        serves(handler)
    assert service.HANDLERS == {}


def test_two_handlers_for_one_request_fail_at_once() -> None:
    serves(good)
    with pytest.raises(TypeError, match=r"meshes\.log"):
        serves(other)


async def test_a_request_without_a_handler_is_unsupported(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as broker:
        mesh = Mesh(Person("ada"))
        ada = await join(broker, Device(mesh, mesh.founder, "ada"))
        bare = Service(broker.parts, {})
        broker.service = bare
        late = await join(broker, ada.device)
        with pytest.raises(MeshError) as caught:
            await late.call(AskMesh())
        assert caught.value.code == "unsupported"
