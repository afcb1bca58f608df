"""``lc session env``."""

from __future__ import annotations

import shlex

import click

from lightcone.cli.say import say
from lightcone.context import ADDRESS_VARIABLE, external_address, here

__all__ = ["command"]


@click.command("env")
def command() -> None:
    """Print the variables by which a program of yours joins the session: eval "$(lc session env)".

    The session is started if need be. What lc does in such a shell stays the same.
    """
    from lightcone.cluster.command import client_variables
    from lightcone.session.credentials import key_file
    from lightcone.session.starting import ensure

    address = external_address()
    if address is not None:
        click.echo(f"export {ADDRESS_VARIABLE}={shlex.quote(address)}")
        return
    context = here()
    told = ensure(context, say).description
    for name, value in client_variables(told["address"], key_file(context.state)).items():
        click.echo(f"export {name}={shlex.quote(value)}")
