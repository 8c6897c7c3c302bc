"""Declarations: what the catalogue takes in, and what fails when it is imported."""

import importlib
import inspect
import pkgutil
import types
from itertools import pairwise
from typing import Any

import pytest

import claudemesh_wire
from claudemesh_wire.handshake import Hello, Welcome
from claudemesh_wire.meshes import MeshFacts
from claudemesh_wire.message import (
    ALLOWED,
    CATALOGUE,
    KIND_GRAMMAR,
    Message,
    Notice,
    Rate,
    Refused,
    Request,
    Role,
    Rule,
)
from claudemesh_wire.messages import Fetch, Send
from claudemesh_wire.presence import UpdatePresence
from claudemesh_wire.search import SearchPeers
from tests.wire.world import code_of

for _module in pkgutil.iter_modules(claudemesh_wire.__path__):
    importlib.import_module(f"claudemesh_wire.{_module.name}")
OURS = [one for one in CATALOGUE.values() if one.__module__.startswith("claudemesh_wire.")]
REQUESTS = [one for one in OURS if issubclass(one, Request)]


def declare(
    *bases: type, module: str = "tests.wire.test_message", **declared: Any
) -> type[Message]:
    """Declare a class as an import would."""
    body = {"__module__": module, "__qualname__": "Probe", "__doc__": "A probe."}
    return types.new_class("Probe", bases, declared, lambda namespace: namespace.update(body))


RULES: dict[str, Any] = {"rule": Rule.READ, "rate": Rate.RPC}


@pytest.mark.parametrize(
    ("bases", "declared"),
    [
        ((Message,), {}),
        ((Notice,), {}),
        ((Message,), {"kind": ""}),
        ((Message,), {"kind": "Upper.case"}),
        ((Message,), {"kind": "a.b.c"}),
        ((Message,), {"kind": "a b"}),
        ((Message,), {"kind": "a.b\n"}),
        ((Message,), {"kind": "refused"}),
        ((Notice,), {"kind": "messages.send"}),
        ((Request[MeshFacts],), {**RULES}),
        ((Request[MeshFacts],), {**RULES, "kind": "messages.send"}),
        ((Request[MeshFacts],), {"kind": "probe.ask", "rule": Rule.READ}),
        ((Request[MeshFacts],), {"kind": "probe.ask", "rate": Rate.RPC}),
        ((Request[MeshFacts],), {"kind": "probe.ask"}),
        ((Request,), {**RULES, "kind": "probe.ask"}),
        ((Request[Any],), {**RULES, "kind": "probe.ask"}),
        ((Request[Message],), {**RULES, "kind": "probe.ask"}),
        ((Request[Notice],), {**RULES, "kind": "probe.ask"}),
        ((SearchPeers,), {**RULES, "kind": "probe.ask"}),
    ],
    ids=str,
)
def test_a_mistake_of_declaration_fails_at_import(
    bases: tuple[type, ...], declared: dict[str, Any]
) -> None:
    before = dict(CATALOGUE)
    with pytest.raises(TypeError, match=r"Probe|declared twice"):
        declare(*bases, **declared)
    assert before == CATALOGUE


def test_a_kind_belongs_in_the_module_of_its_feature() -> None:
    with pytest.raises(TypeError, match=r"topics\.py"):
        declare(Message, module="claudemesh_wire.files", kind="topics.shared")
    assert "topics.shared" not in CATALOGUE


@pytest.mark.parametrize("kind", OURS, ids=lambda one: one.kind)
def test_every_kind_says_what_it_is(kind: type[Message]) -> None:
    assert inspect.getdoc(kind)
    assert kind.__doc__ not in {base.__doc__ for base in kind.__mro__[1:]}
    assert KIND_GRAMMAR.fullmatch(kind.kind)


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda one: one.kind)
def test_every_request_says_what_stands_around_it(kind: type[Request[Any]]) -> None:
    assert CATALOGUE[kind.reply.kind] is kind.reply
    assert not issubclass(kind.reply, Request | Notice)
    assert isinstance(kind.rule, Rule)
    assert isinstance(kind.rate, Rate)
    assert isinstance(kind.audited, bool)


def test_a_request_knows_its_reply_and_its_rules() -> None:
    assert (Hello.reply, Hello.rule, Hello.rate, Hello.audited) == (
        Welcome,
        Rule.OPEN,
        Rate.AUTH,
        True,
    )
    assert not Fetch.audited


def test_a_kind_is_declared_and_found_under_its_name() -> None:
    found = declare(Message, kind="probe.told")
    try:
        assert CATALOGUE["probe.told"] is found
        assert found.from_json("{}").kind == "probe.told"
    finally:
        del CATALOGUE["probe.told"]


def test_each_role_may_all_that_the_one_below_may() -> None:
    order = [Role.OBSERVER, Role.MEMBER, Role.ADMIN, Role.OWNER]
    sets = [ALLOWED[role] for role in order]
    assert all(lower < higher for lower, higher in pairwise(sets))
    assert [rule for rule in Rule if rule not in ALLOWED[Role.OBSERVER]] == [
        Rule.WRITE,
        Rule.ADMIN,
        Rule.OWNER,
    ]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (SearchPeers, ""),
        (SearchPeers, "[]"),
        (SearchPeers, "null"),
        (SearchPeers, '{"query":1}'),
        (SearchPeers, '{"query":"\\ud800"}'),
        (SearchPeers, '{"query":"\ud800"}'),
        (SearchPeers, '{"limit":0}'),
        (SearchPeers, '{"offset":-1}'),
        (SearchPeers, '{"offset":9007199254740992}'),
        (SearchPeers, '{"filters":{"group":"@x"}}'),
        (Fetch, '{"after_row":1e300}'),
        (Fetch, '{"after_row":99999999999999999999999999}'),
        (Send, '{"envelope":"AA"}'),
        (Send, '{"envelope":"!","resolved_ms":1}'),
        (Send, '{"envelope":7,"resolved_ms":1}'),
        (UpdatePresence, '{"handle":"p_abcdef"}'),
        (UpdatePresence, '{"status":"asleep"}'),
        (UpdatePresence, '{"profile":[]}'),
    ],
    ids=ascii,
)
def test_a_body_of_another_shape_is_refused(kind: type[Message], body: str) -> None:
    assert code_of(lambda: kind.from_json(body)) == "invalid"


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    body = f'{{"name":"x","created_ms":1,"limits":{{"{"k" * 5000}":"secret"}}}}'
    with pytest.raises(Exception, match=r"meshes\.facts") as caught:
        MeshFacts.from_json(body)
    assert len(str(caught.value)) < 300
    assert "secret" not in str(caught.value)


def test_fields_that_a_later_version_adds_are_ignored() -> None:
    assert SearchPeers.from_json('{"query":"ada","rank":"best"}') == SearchPeers(query="ada")


@pytest.mark.parametrize("written", ["-_8", "-_8=", "+/8=", "+/8"])
def test_bytes_are_read_in_either_base64(written: str) -> None:
    assert Send.from_json(f'{{"envelope":"{written}","resolved_ms":1}}').envelope == b"\xfb\xff"


def test_no_default_is_shared() -> None:
    one, two = (
        Refused(category="x", code="x", reason="x"),
        Refused(category="x", code="x", reason=""),
    )
    one.details["a"] = 1
    assert two.details == {}
