"""``lc session logs``."""

from __future__ import annotations

import os

import click

from lightcone.context import here
from lightcone.errors import SessionError

__all__ = ["command"]

_ROLES = ("scheduler", "worker")


@click.command("logs")
@click.argument("program", required=False, type=click.Choice(_ROLES))
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added.")
@click.option(
    "-n",
    "--lines",
    default=100,
    show_default=True,
    type=click.IntRange(min=0),
    help="How many of the last lines of each.",
)
def command(program: str | None, follow: bool, lines: int) -> None:
    """Show what the session's programs have logged, also after their end."""
    context = here()
    roles = _ROLES if program is None else (program,)
    files = [context.state / "logs" / f"{role}.log" for role in roles]
    files = [file for file in files if file.exists()]
    if not files:
        raise SessionError("There are no logs, as no session was started here: use 'lc run'.")
    arguments = ["tail", "-n", str(lines), *(["-F"] if follow else []), *map(str, files)]
    os.execvp("tail", arguments)  # noqa: S606 (no shell; the system's own tail)
