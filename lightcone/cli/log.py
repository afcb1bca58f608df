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
from lightcone.project.context import Context, current_context
from lightcone.spec.output import Output
from lightcone.spec.outputs import load_outputs
from lightcone.spec.selection import named, select
from lightcone.state.claims import holder
from lightcone.state.journal import good_log
from lightcone.state.partial import describe_partial, describe_resume, find_partial, has_partial
from lightcone.state.plan import plan

__all__ = ["command", "find_output"]

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
    """Show the log of OUTPUT's recipe, of its last or its current run.

    The log begins with the command and what its environment has that the caller's has not, and
    ends with how the recipe ended.
    """
    if good and follow:
        raise UsageError("'--good' shows what has ended: leave out '--follow'.")
    context = current_context()
    outputs = load_outputs(context.root, context.settings, universe)
    chosen = find_output(outputs, output)
    log = good_log(chosen) if good or not chosen.log.exists() else chosen.log
    if log is None:
        missing = "no log of a good result" if good else "no log"
        raise UsageError(f"{output} has {missing}, as none was made here: use 'lc run'.")
    _check(log)
    if follow:
        _follow(chosen, log)
    else:
        with open(log, "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    if not good and holder(chosen) is None and has_partial(chosen):
        sys.stdout.buffer.flush()
        partial = _describe_partial(context, outputs, chosen)
        if partial:
            click.echo(f"# kept: {partial}")


def _describe_partial(context: Context, outputs: list[Output], chosen: Output) -> str:
    """Describe the partial work of an output, and whether a recipe can go on from it."""
    assessed = plan(select(outputs, [chosen.name]), hashes=context.hashes)
    provenance = assessed[chosen.key].provenance
    work = find_partial(chosen, None if provenance is None else provenance.identity)
    by_rule = context.settings.for_output(chosen.universe, chosen.id).resume
    return describe_partial(work, describe_resume(by_rule=by_rule))


def _check(log: Path) -> None:
    """Refuse a log that is not a readable file."""
    if not log.is_file() or not os.access(log, os.R_OK):
        raise UsageError(f"{log} is no file that can be read: move it out of the way.")


def _follow(output: Output, log: Path) -> None:
    """Show the log, and that of a new attempt, until no recipe runs."""
    while True:
        with open(log, "rb") as file:
            while True:
                # Checked before copying, so that all that was written until then is copied.
                ended = holder(output) is None
                shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.flush()
                if ended:
                    return
                if _is_replaced(output.log, file):
                    break
                time.sleep(_TICK)
        log = output.log


def _is_replaced(log: Path, file: IO[bytes]) -> bool:
    try:
        return not os.path.samestat(os.stat(log), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def find_output(outputs: list[Output], name: str) -> Output:
    """Return the one output of a name.

    Raises:
        UsageError: where there is none, or one in each of several universes.
    """
    keys = named(outputs, [name])
    matches = [output for output in outputs if output.key in keys]
    if len(matches) > 1:
        names = ", ".join(output.name for output in matches)
        raise UsageError(f"{name} is made in several universes: name one of {names}.")
    return matches[0]
