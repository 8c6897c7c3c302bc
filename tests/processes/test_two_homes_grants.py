"""Two homes over TLS: what one lets the other do, from its shell; held, told, let through."""

from tests.support.hosting import ok
from tests.support.shell import Shell


def joined(ada: Shell, bob: Shell, invite: tuple[str, ...] = (), *words: str) -> None:
    link = ok(ada.run("invite", *invite, "--json")).json["link"]
    ok(bob.run("join", link, "--as", "bob", *words))


def rights(shell: Shell, direction: str) -> dict[str, str]:
    """What holds with the one other member."""
    [row] = ok(shell.run("grants", "--json")).json[direction]
    return row["rights"]


def test_the_command_that_a_sender_is_told_lets_its_message_through(ada: Shell, bob: Shell) -> None:
    joined(ada, bob)
    ok(ada.run("revoke", "bob", "message"))
    ok(ada.run("inbox"))
    sent = ok(bob.run("send", "max", "Are you there?", "--json")).json
    [to] = sent["recipients"]
    assert to["status"] == "held"
    told = ok(ada.run("inbox"))
    assert told.out == ""
    assert told.err.splitlines()[-1] == "1 message from bob is held: claudemesh inbox --held"
    findings = {one["name"]: one for one in ada.run("doctor", "--json").json["checks"]}
    assert findings["held"]["state"] == "warn"
    assert findings["grants"]["state"] == "ok"
    said = findings["grants"]["message"]
    assert said.startswith("1 other member; 1 with rights beside the defaults, 0 blocked.")
    assert "member message, topic, wake (now only, 3 an hour); observer -" in said
    [row] = ok(bob.run("message-status", sent["id"], "--json")).json["recipients"]
    assert (row["status"], row["reason"], row["proved"]) == ("held", "message", True)
    mesh = ok(ada.run("inbox", "--held", "--json")).json["held"][0]["mesh"]
    assert row["hint"].endswith(f"claudemesh --mesh {mesh} allow bob")
    ok(ada.run(*row["hint"].rpartition("claudemesh ")[2].split()))
    [row] = ok(bob.run("message-status", sent["id"], "--json")).json["recipients"]
    assert (row["status"], row["proved"]) == ("delivered", True)
    [message] = ok(ada.run("inbox", "--json")).json["messages"]
    assert message["text"] == "Are you there?"


def test_a_second_machine_of_ones_own_is_granted_all_by_both(ada: Shell, bob: Shell) -> None:
    joined(ada, bob, ("--mine",), "--mine")
    everything = dict.fromkeys(("message", "topic", "wake", "task", "tool", "file"), "yes")
    assert rights(ada, "i_let") == rights(ada, "let_me") == everything
    assert rights(bob, "i_let") == rights(bob, "let_me") == everything


def test_what_an_invite_grants_holds_until_it_is_revoked(ada: Shell, bob: Shell) -> None:
    joined(ada, bob, ("--grant", "task"))
    assert rights(bob, "let_me")["task"] == rights(ada, "i_let")["task"] == "yes"
    assert rights(bob, "i_let")["task"] == "no"
    ok(ada.run("revoke", "bob", "task"))
    assert rights(bob, "let_me")["task"] == rights(ada, "i_let")["task"] == "no"


def test_who_leaves_a_mesh_hears_first_what_is_held_of_it(ada: Shell, bob: Shell) -> None:
    joined(ada, bob)
    ok(bob.run("revoke", "max", "message"))
    ok(bob.run("inbox"))
    ok(ada.run("send", "bob", "psst"))
    ok(bob.run("inbox"))
    asked = bob.run("mesh", "leave", "team", "--here")
    assert asked.code == 2
    assert asked.err.startswith("1 message from max is held, and can then be neither read")
    told = ok(bob.run("mesh", "leave", "team", "--here", "--yes"))
    assert told.err.startswith("1 message from max is held")
