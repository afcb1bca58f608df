"""``lc clean``."""

from __future__ import annotations

import click

from lightcone.project.context import current_context
from lightcone.spec.outputs import load_outputs
from lightcone.state.claims import Claim
from lightcone.state.partial import discard_partial
from lightcone.system.units import format_bytes

__all__ = ["command"]


@click.command("clean", short_help="Remove the partial work of failed and interrupted recipes.")
def command() -> None:
    """Remove the partial work of failed and interrupted recipes, which 'lc run --resume' uses.

    Good results are never touched, nor is the work of a running recipe.
    """
    context = current_context()
    freed = 0
    for output in load_outputs(context.root, context.settings):
        if not output.state_dir.is_dir():
            continue
        claim = Claim.take(output, context.claims)
        if isinstance(claim, Claim):
            try:
                freed += discard_partial(output)
            finally:
                claim.release()
    click.echo(f"freed {format_bytes(freed)}")
