"""``lc session``."""

from __future__ import annotations

import click

from lightcone.cli.verbs import Verbs

__all__ = ["command"]

_VERBS = (
    "attach",
    "env",
    "list",
    "logs",
    "release",
    "start",
    "status",
    "stop",
    "top",
    "wait",
)


@click.command(
    "session",
    cls=Verbs,
    package=__name__,
    verbs=_VERBS,
    short_help="The cluster that stays up between runs.",
)
def command() -> None:
    """The cluster of this project: one, started on first use, that stays up between runs."""
