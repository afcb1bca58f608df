"""``lc clean``."""

from __future__ import annotations

import os
import stat

import click

from lightcone.errors import UsageError
from lightcone.project.context import current_context
from lightcone.spec.output import Output
from lightcone.spec.outputs import load_outputs
from lightcone.state.claims import Busy, Claim
from lightcone.state.partial import discard_partial
from lightcone.system.units import format_bytes

__all__ = ["command"]


@click.command("clean", short_help="Remove the partial work of failed and interrupted recipes.")
def command() -> int:
    """Remove the partial work of failed and interrupted recipes, which 'lc run --resume' uses.

    Good results are never touched, nor is the work of a running recipe.
    """
    context = current_context()
    freed = 0
    is_complete = True
    for output in load_outputs(context.root, context.settings):
        try:
            if _has_nothing(output):
                continue
            claim = Claim.take(output, context.claims)
            if isinstance(claim, Busy):
                click.echo(f"{output.name}: left alone, in use by {claim.by}")
                continue
            try:
                size = discard_partial(output)
                if size:
                    click.echo(f"{output.name}: removed {format_bytes(size)} of partial work")
                freed += size
            finally:
                claim.release()
        except (OSError, UsageError) as error:
            reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
            click.echo(f"{output.name}: left alone: {reason}", err=True)
            is_complete = False
    click.echo(f"freed {format_bytes(freed)}")
    return 0 if is_complete else 1


def _has_nothing(output: Output) -> bool:
    """Return whether nothing is kept of the output; raise OSError where that cannot be seen."""
    try:
        return not stat.S_ISDIR(os.stat(output.state).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
