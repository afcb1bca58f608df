"""``lc session top``."""

from __future__ import annotations

import json
import os

import click

from lightcone.cli.session.living import living
from lightcone.context import here
from lightcone.errors import SessionError, UsageError

__all__ = ["command"]


@click.command("top")
@click.option("--once", is_flag=True, help="Print how it is now, and leave.")
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
def command(once: bool, as_json: bool) -> None:
    """Look at the session: workers, what runs, what waits and why, what failed.

    Looking does not keep a session from ending as idle. On the screen, the arrow keys or j and k
    choose an output, Enter shows its log, / filters by name, s sorts, c cancels the run it belongs
    to (after a question), and q or Ctrl-C leaves.
    """
    context = here()
    living(context, "look at")
    from lightcone.view.screen import show, snapshot

    if as_json:
        click.echo(json.dumps(snapshot(context)))
    elif once:
        from lightcone.view.picture import plain

        click.echo(plain(snapshot(context)))
    elif not (os.isatty(0) and os.isatty(1)):
        raise UsageError("The screen needs a terminal: use '--once' or '--json' instead.")
    else:
        try:
            ended = show(context, choosing=True)
        except OSError as error:
            raise SessionError(
                "The session ended as it was about to be looked at: see 'lc session status'."
            ) from error
        if ended is not None:
            click.echo(f"{context.name}: ended{f', {ended}' if ended else ''}")
