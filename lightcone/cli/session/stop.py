"""``lc session stop``."""

from __future__ import annotations

import click

from lightcone.cli.say import say
from lightcone.context import ADDRESS_VARIABLE, external_address, here

__all__ = ["command"]


@click.command("stop")
@click.option("--force", is_flag=True, help="Also where whether it is alive cannot be told.")
def command(force: bool) -> None:
    """End the session and everything it runs; does nothing where there is none."""
    from lightcone.session.ending import stop
    from lightcone.session.request import give_back

    address = external_address()
    if address is not None:
        say(f"the cluster at {address}, which {ADDRESS_VARIABLE} names, is not lc's to stop")
        return
    context = here()
    reason = f"stopped by 'lc session stop{' --force' if force else ''}'"
    if stop(context, reason, force=force):
        click.echo(f"{context.name}: ended")
    if give_back(context):
        click.echo(f"SLURM job {context.job}, which 'lc run --allocate' got: ended")
