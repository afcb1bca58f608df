"""``lc log``."""

from __future__ import annotations

import os
import shutil
import sys

import click

from lightcone.analysis.output import Output
from lightcone.analysis.selection import named
from lightcone.analysis.spec import load_outputs
from lightcone.context import here
from lightcone.errors import UsageError

__all__ = ["command"]


@click.command("log", short_help="Show what a recipe printed.")
@click.argument("output")
@click.option("-u", "--universe", help="The universe, where there are several.")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added.")
def command(output: str, universe: str | None, follow: bool) -> None:
    """Show what the recipe of OUTPUT printed when it last ran, or has printed so far.

    The log begins with the command and ends with how it ended.
    """
    context = here()
    log = _one(load_outputs(context.root, context.settings, universe), output).log
    if not log.exists():
        raise UsageError(f"{output} has no log, as its recipe has not run here: use 'lc run'.")
    if follow:
        os.execvp("tail", ["tail", "-n", "+1", "-F", str(log)])  # noqa: S606 (no shell)
    with open(log, "rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer)


def _one(outputs: list[Output], name: str) -> Output:
    keys = named(outputs, [name])
    found = [output for output in outputs if output.key in keys]
    if len(found) > 1:
        names = ", ".join(output.name for output in found)
        raise UsageError(f"{name} is made in several universes: name one of {names}.")
    return found[0]
