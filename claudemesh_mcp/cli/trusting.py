"""The command ``mesh trust``: accepts what a mesh's broker shows now, once that was told.

``meshes.py`` lists it. What the broker shows comes from ``brokers.py``.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from claudemesh_mcp.cli import show
from claudemesh_mcp.cli.asking import open_mesh
from claudemesh_mcp.cli.chosen import home, settings
from claudemesh_mcp.cli.humans import check_human
from claudemesh_mcp.cli.known import Given, Yes, confirm, joined
from claudemesh_wire.errors import Invalid

if TYPE_CHECKING:
    from claudemesh_mcp.config import Settings
    from claudemesh_mcp.meshes import Place


def trust(
    name: Given,
    certificate: Annotated[
        str | None,
        typer.Option(metavar="SHA256", help="The fingerprint that the broker's admin told you."),
    ] = None,
    admin_secret_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The broker's admin secret, to give it a mesh it lost."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Accept what a mesh's broker shows now: a renewed certificate, or another broker in its place.

    What is shown is told first, beside what was trusted. Another id is another broker: of what the
    one before kept it has nothing, unless its admin restores a backup. Messages stay sealed, and
    the log of members is believed as before; the new broker is given it by its own home, or by
    whoever shows its admin secret here.

    \b
    Examples:
      claudemesh mesh trust team
      claudemesh mesh trust team --certificate 3f5a…
      claudemesh mesh trust team --admin-secret-file admin.secret
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    from claudemesh_mcp import brokers, meshes

    check_human()
    known = joined(name)
    if known.place is None:
        raise Invalid(f"{known.name} has its broker in this home.", "There is nothing to accept.")
    secret = brokers.read_admin_secret(admin_secret_file) if admin_secret_file is not None else None
    before, shown = known.place, anyio.run(brokers.as_shown, known.place, settings())
    if certificate is not None and certificate.lower().replace(":", "") != shown.pin.hex():
        raise Invalid(
            f"The broker shows another certificate: {shown.pin.hex() or 'one of an authority'}.",
            "Don't accept it before its admin has explained it.",
            code="certificate_changed",
        )
    _tell_change(known.name, before, shown)
    if shown.broker != before.broker or (certificate is None and shown.pin != before.pin):
        confirm("Is that what its admin told you?", yes)
    meshes.update_place(home(), known.id, shown)
    show.word("It is accepted.")
    if secret is not None:
        anyio.run(_offer, replace(settings(), mesh=known.id), secret)
        show.word(f"It has {known.name}, with all members that this home knows of.")


def _tell_change(name: str, before: "Place", shown: "Place") -> None:
    """Say how a broker shows itself, beside how it was trusted."""
    told = (
        ("certificate", before.pin.hex() or "vouched for", shown.pin.hex() or "vouched for"),
        ("id", before.broker, shown.broker),
    )
    for what, old, new in told:
        if old == new:
            show.word(f"The broker of {name} has the {what} that is trusted: {new}")
        else:
            show.word(f"The broker of {name} shows another {what}: {new}")
            show.word(f"  trusted so far: {old}")


async def _offer(chosen: "Settings", secret: bytes) -> None:
    """Connect as one who may make meshes there: what the broker lacks of the log it is given."""
    async with open_mesh(settings=chosen, admin_secret=secret) as mesh:
        await mesh.ready()
