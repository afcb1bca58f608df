"""``lc cancel``."""

from __future__ import annotations

import click

from lightcone.context import here
from lightcone.run.detached import find

__all__ = ["command"]


@click.command("cancel", short_help="End a detached run.")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """Do to the detached run NAME what Ctrl-C does, and wait for its end.

    Its recipes are asked to end; when it is cancelled once more meanwhile, they are ended at once.
    Without NAME it is the one that goes on.
    """
    run = find(here(), name)
    if run.cancel():
        click.echo(f"{run.name}: ended")
    else:
        click.echo(f"{run.name}: had ended already")
