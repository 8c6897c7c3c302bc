"""The commands ``send``, ``inbox``, ``message-status`` and ``history``.

They ask ``Mesh`` as the command line's own peer and print through ``show.py``.
"""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast

import anyio
import typer

from claudemesh_mcp.cli import held as waiting
from claudemesh_mcp.cli import show
from claudemesh_mcp.cli.asking import ask, open_mesh, own_peer
from claudemesh_wire.errors import Invalid, MeshError, TooMuch

if TYPE_CHECKING:
    from claudemesh_mcp.history import Wanted
    from claudemesh_mcp.results import HistoryResult, InboxResult
    from claudemesh_mcp.sdk import Mesh

Priority = Literal["now", "next", "low"]
WaitFor = Literal["delivered", "seen"]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_STDIN: Final = "-"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(send)
    app.command()(inbox)
    app.command("message-status")(message_status)
    app.command()(history)


def send(
    to: Annotated[
        str, typer.Argument(help="A handle, member/handle, peer id, @group or *; commas between.")
    ],
    text: Annotated[str, typer.Argument(help="What to say; - reads it from stdin.")],
    *,
    priority: Annotated[Priority, typer.Option(help="How soon it should be read.")] = "next",
    reply_to: Annotated[
        str | None, typer.Option(metavar="ID", help="The message that this one answers.")
    ] = None,
    thread: Annotated[str | None, typer.Option(help="What keeps an exchange together.")] = None,
    expires_in: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="When it is useless; 7 days if not given.")
    ] = None,
    supersedes: Annotated[
        str | None,
        typer.Option(metavar="ID", help="An earlier message to them: not shown if unread."),
    ] = None,
    git_sha: Annotated[
        str | None,
        typer.Option(metavar="COMMIT", help="Show it only where this commit is checked out."),
    ] = None,
    wait_for: Annotated[
        WaitFor | None, typer.Option(help="Wait until all got so far; exit code 1 if not.")
    ] = None,
    wait: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long; 30 if not given.")
    ] = None,
    json: Json = False,
) -> None:
    """Send a sealed message.

    \b
    Examples:
      claudemesh send ada "The build is green."
      claudemesh send ada,bob "Who takes the review?" --priority now
      git diff | claudemesh send @reviewers -
      claudemesh send ada "Can I deploy?" --wait-for seen --wait 60
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    addresses = [one.strip() for one in to.split(",")]
    said = _read_stdin() if text == _STDIN else text
    sent = ask(
        lambda mesh: mesh.send(
            addresses,
            said,
            priority=priority,
            reply_to=reply_to,
            thread=thread,
            expires_in_s=expires_in,
            supersedes=supersedes,
            valid_if={"git_sha": git_sha} if git_sha is not None else None,
            wait_for=wait_for,
            wait_s=wait,
        )
    )
    if json:
        show.data(sent)
    else:
        show.line(sent.id)
        show.recipients(sent.recipients)
    if sent.reached is False:
        raise typer.Exit(show.FAILED)


def inbox(
    *,
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many.")] = 20,
    thread: Annotated[str | None, typer.Option(help="Only those of this thread.")] = None,
    peek: Annotated[bool, typer.Option("--peek", help="Look without taking.")] = False,
    id: Annotated[  # noqa: A002 - the word for it
        str | None, typer.Option("--id", help="Print the whole of this one message.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Be present and print what arrives.")
    ] = False,
    held: Annotated[
        bool, typer.Option("--held", help="List what waits in all your sessions for `allow`.")
    ] = False,
    json: Json = False,
) -> None:
    """Print the messages sent to you, oldest first.

    You are the command line's own peer in this home, the same for each command. With --follow and
    --json each message is one line. What is printed counts as seen.

    \b
    Examples:
      claudemesh inbox
      claudemesh inbox --follow
      claudemesh inbox --json | jq -r .messages[].text
      claudemesh inbox --held
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    if held:
        if follow or peek or id is not None or thread is not None:
            raise typer.BadParameter("--held goes with --json only.")
        waiting.list_all(anyio.run(waiting.find), json=json)
        return
    if follow:
        if peek or id is not None or thread is not None:
            raise typer.BadParameter("--follow goes with --json only.")
        anyio.run(_follow, json)
    elif id is not None:
        anyio.run(_print_whole, id, json)
    else:
        anyio.run(_print_waiting, limit, thread, peek, json)


def message_status(
    id: Annotated[str, typer.Argument(help="What `claudemesh send` printed.")],  # noqa: A002
    json: Json = False,
) -> None:
    """Print how far a message of yours has come.

    And who says so: `delivered` and `seen` are signed by the recipient.

    \b
    Examples:
      claudemesh message-status msg_aebagbafaydqqcikbmga2dqpca
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    status = ask(lambda mesh: mesh.message_status(id))
    if json:
        show.data(status)
    else:
        show.receipts(status.recipients)
        for one in status.recipients:
            if one.hint:
                show.word(f"{one.handle}: {one.hint}")


def history(
    query: Annotated[
        str, typer.Argument(help='Words, "phrases in quotes", begin* of words; all without it.')
    ] = "",
    *,
    with_: Annotated[
        str | None,
        typer.Option("--with", metavar="WHOM", help="A handle, member, peer id, @group or *."),
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only older: a time, or a message's id.")
    ] = None,
    thread: Annotated[str | None, typer.Option(help="Only this thread.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many.")] = 20,
    json: Json = False,
) -> None:
    """Search what the command line sent and printed in the last 30 days, newest first.

    \b
    Examples:
      claudemesh history
      claudemesh history "release notes" --with ada
      claudemesh history --before 2026-01-31T12:00:00Z --json
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    found = anyio.run(_search, _wanted(query, with_, before, thread, limit))
    if json:
        show.data(found)
        return
    if found.notice:
        show.word(found.notice)
    for one in found.messages:
        show.history(one)
    if found.unread:
        show.word(f"{found.unread} more not read yet: claudemesh inbox")
    if found.next_before:
        show.word(f"There are older ones: --before {found.next_before}")


def _wanted(
    query: str, with_: str | None, before: str | None, thread: str | None, limit: int
) -> "Wanted":
    from claudemesh_mcp.history import wanted

    try:
        return wanted(query, with_, before, thread, limit)
    except TooMuch as error:  # here it is how the command was used, and no limit of a broker
        raise Invalid(error.reason, error.hint, code=error.code) from error


async def _search(what: "Wanted") -> "HistoryResult":
    """Search the command line's own file, which takes no broker and no membership."""
    from claudemesh_mcp.shown_history import searched

    async with own_peer() as peer:
        return await searched(peer, what)


async def _print_waiting(limit: int, thread: str | None, peek: bool, json: bool) -> None:
    async with open_mesh() as mesh:
        found = await mesh.inbox(limit=limit, thread=thread, peek=peek)
        if json:
            show.data(found)
        else:
            _print(found)
        await _confirm(mesh)
        waiting.tell(await waiting.find())


def _print(found: "InboxResult") -> None:
    if found.messages:
        show.word(found.notice)
    else:
        show.word("There is no message.")
    for one in found.messages:
        show.message(one)
    if found.unread:
        show.word(f"{found.unread} more: run it again.")


async def _print_whole(identifier: str, json: bool) -> None:
    """Print one message with all of its text, which comes in parts."""
    async with open_mesh() as mesh:
        found = await mesh.inbox(id=identifier)
        whole = found.messages[0]
        while whole.more_bytes:
            offset = len(whole.text.encode())
            part = (await mesh.inbox(id=identifier, offset=offset)).messages[0]
            whole.text += part.text
            whole.more_bytes = part.more_bytes
        if json:
            show.data(found)
        else:
            show.message(whole)
        await _confirm(mesh)


async def _follow(json: bool) -> None:
    async with open_mesh(attach=True) as mesh:
        show.word("Waiting for messages; Ctrl-C ends it.")
        try:
            await _print_all(mesh, json)
        finally:
            with anyio.CancelScope(shield=True):
                await mesh.depart()


async def _print_all(mesh: "Mesh", json: bool) -> None:
    """Print messages and, beside them, who comes and goes."""
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_tell_news, mesh)
        try:
            await _print_arriving(mesh, json)
        except (MeshError, OSError) as error:
            failure = error
        tasks.cancel_scope.cancel()
    # Outside of the group, which would wrap it in one of exceptions.
    if failure is not None:
        raise failure


async def _print_arriving(mesh: "Mesh", json: bool) -> None:
    async for one in mesh.messages():
        if json:
            show.data(one, indent=None)
        else:
            show.message(one)
        # It counts as seen when the next one is asked for: so it is handed over before.
        show.flush()


async def _tell_news(mesh: "Mesh") -> None:
    with suppress(OSError):  # Nobody reads stderr any more; the messages go on.
        async for sentence in mesh.news():
            show.word(sentence)


async def _confirm(mesh: "Mesh") -> None:
    show.flush()
    await mesh.confirm()


def _read_stdin() -> str:
    """Read a text from stdin, without the line end that `echo` puts behind it.

    Raises:
        TooMuch: it is longer than a message may be; the rest is not read.
        Invalid: it is not text.
    """
    from claudemesh_wire.messages import MAX_TEXT_BYTES

    raw = cast("bytes", sys.stdin.buffer.read(MAX_TEXT_BYTES + 2))
    if len(raw) > MAX_TEXT_BYTES + 1:
        raise TooMuch(
            "The text on stdin is longer than 256 KiB.",
            "Send a summary, or the place where the whole can be read.",
            code="text_too_long",
        )
    try:
        return raw.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise Invalid(
            f"What is on stdin is not UTF-8 text (byte {error.start}).",
            "Send text; encode other data first.",
            code="not_text",
        ) from error
