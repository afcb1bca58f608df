"""``lc session start``."""

from __future__ import annotations

import time

import click

from lightcone.cli.say import say
from lightcone.context import external_address, here
from lightcone.session.lease import check
from lightcone.units import format_seconds

__all__ = ["command"]


@click.command("start")
@click.option("--lease", metavar="NAME", help="Take this lease of it, to be given up by release.")
def command(lease: str | None) -> None:
    """Start the session unless it is there, and wait until it is ready."""
    from lightcone.session.starting import ensure

    address = external_address()
    if address is not None:
        from lightcone.session.external import describe

        click.echo(f"{describe(address)['name']}: used as it is, and not started")
        return
    context = here()
    begun = time.monotonic()
    ensured = ensure(context, say, lease=None if lease is None else check(lease))
    how = f"started in {format_seconds(time.monotonic() - begun)}"
    click.echo(f"{context.name}: {how if ensured.spawned else 'is up already'}")
