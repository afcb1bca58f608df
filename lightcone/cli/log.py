"""``lc log``."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import IO

import click

from lightcone.cli.completion import complete_outputs, complete_universes
from lightcone.errors import UsageError
from lightcone.project.context import current_context
from lightcone.spec.output import Output
from lightcone.spec.outputs import load_outputs
from lightcone.spec.selection import named
from lightcone.state.claims import holder
from lightcone.state.journal import good_log

__all__ = ["command"]

_TICK = 0.2


@click.command("log", short_help="Show what a recipe printed.")
@click.argument("output", shell_complete=complete_outputs)
@click.option(
    "-u",
    "--universe",
    help="The universe, where there are several.",
    shell_complete=complete_universes,
)
@click.option("-f", "--follow", is_flag=True, help="Go on until the recipe has ended.")
@click.option("--good", is_flag=True, help="Of the good result, where a later attempt has failed.")
def command(output: str, universe: str | None, follow: bool, good: bool) -> None:
    """Show what the recipe of OUTPUT printed when it last ran, well or not, or has printed so far.

    The log begins with the command and what its environment has that the caller's has not, and
    ends with how the recipe ended.
    """
    if good and follow:
        raise UsageError("'--good' shows what has ended: leave out '--follow'.")
    context = current_context()
    found = _one(load_outputs(context.root, context.settings, universe), output)
    log = good_log(found) if good or not found.log.exists() else found.log
    if log is None:
        what = "no log of a good result" if good else "no log"
        raise UsageError(f"{output} has {what}, as none was made here: use 'lc run'.")
    _check(log)
    if follow:
        _follow(found, log)
    else:
        with open(log, "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)


def _check(log: Path) -> None:
    """Refuse what is no log and would be waited for, or cannot be read."""
    if not log.is_file() or not os.access(log, os.R_OK):
        raise UsageError(f"{log} is no file that can be read: move it out of the way.")


def _follow(output: Output, log: Path) -> None:
    """Show a log until nobody makes the output any more; of a new attempt, its log."""
    while True:
        with open(log, "rb") as file:
            while True:
                over = holder(output) is None  # asked first: what came before is then shown
                shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.flush()
                if over:
                    return
                if _is_another(output.log, file):
                    break
                time.sleep(_TICK)
        log = output.log


def _is_another(log: Path, file: IO[bytes]) -> bool:
    try:
        return not os.path.samestat(os.stat(log), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _one(outputs: list[Output], name: str) -> Output:
    keys = named(outputs, [name])
    found = [output for output in outputs if output.key in keys]
    if len(found) > 1:
        names = ", ".join(output.name for output in found)
        raise UsageError(f"{name} is made in several universes: name one of {names}.")
    return found[0]
